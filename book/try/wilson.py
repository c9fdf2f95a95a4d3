# How sure is a score? The 95% interval of a share of right answers.
import math

right, n = 24, 30


def wilson(right, n, z=1.959964):
    share = right / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    half = z / (1 + z * z / n) * spread
    return 100 * (center - half), 100 * (center + half)


low, high = wilson(right, n)
print(f"{100 * right / n:.1f} percent, between {low:.1f} and {high:.1f}")

for more in (30, 100, 500, 5000):
    low, high = wilson(right / n * more, more)
    print(f"with {more:5} problems: between {low:.1f} and {high:.1f}")
