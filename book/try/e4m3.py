# The nearest number that eight bits can hold. Try 1.06, 0.001 or 500.
import math

number = 1.3


def to_e4m3(x):
    """Three bits after the point, exponents from -6 to 8, at most 448."""
    if x == 0:
        return 0.0
    exponent = max(math.floor(math.log2(abs(x))), -6)
    step = 2.0 ** (exponent - 3)
    rounded = round(x / step) * step  # a tie goes to the even neighbor
    return math.copysign(min(abs(rounded), 448.0), x)


nearest = to_e4m3(number)
off = abs(nearest - number) / abs(number)
print(f"{number} becomes {nearest}, off by {100 * off:.1f} percent")

total = 1.0
for _ in range(1000):
    total = to_e4m3(total + 0.001)
print("1 plus a thousandth, a thousand times:", total)
