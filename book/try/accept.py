# A drafter guesses with q, the model decides with p. What comes out follows p, whatever q is.
import random

p = [0.5, 0.3, 0.2]  # what the model would write
q = [0.1, 0.1, 0.8]  # what the drafter guesses
random.seed(0)


def draw(weights):
    point = random.random() * sum(weights)
    for token in range(2):
        point -= weights[token]
        if point < 0:
            return token
    return 2


n, accepted, counts = 5000, 0, [0, 0, 0]
for _ in range(n):
    token = draw(q)
    if random.random() < p[token] / q[token]:
        accepted += 1
    else:  # draw again, from what the drafter left out
        token = draw([max(a - b, 0) for a, b in zip(p, q)])
    counts[token] += 1

print(f"accepted: {accepted / n:.3f}")
print(f"by formula: {sum(map(min, p, q)):.3f}")
print("written: ", [round(count / n, 3) for count in counts])
print("the model:", p)
