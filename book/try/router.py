# A token asks eight experts and two answer. Change the token, top_k or the bias.
import math

token = [1.0, 0.5]
experts = [[1, 0], [0, 1], [-1, 0], [0, -1]]
experts += [[0.7, 0.7], [-0.7, 0.7], [-0.7, -0.7], [0.7, -0.7]]
bias = [0, 0, 0, 0, 0, 0, 0, 0]  # for the choice alone
top_k = 2

scores = []
for expert in experts:
    match = sum(a * b for a, b in zip(token, expert))
    scores.append(1 / (1 + math.exp(-match)))

order = sorted(range(8), key=lambda e: -(scores[e] + bias[e]))
chosen = order[:top_k]
total = sum(scores[e] for e in chosen)

for e in range(8):
    gate = scores[e] / total if e in chosen else 0
    bar = "#" * round(30 * gate)
    print(f"expert {e}: {scores[e]:.3f}  gate {gate:.3f}  {bar}")
