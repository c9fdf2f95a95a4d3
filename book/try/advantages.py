# Eight answers to one problem. A reward says which were right; the group says how rare that was.
import math

rewards = [0, 0, 1, 0, 0, 0, 1, 0]  # try all ones, or a single one

mean = sum(rewards) / len(rewards)
spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))

for number, reward in enumerate(rewards):
    advantage = (reward - mean) / (spread + 1e-4)
    way = "more likely" if advantage > 0 else "less likely" if advantage < 0 else "as it was"
    print(f"answer {number}: reward {reward}, advantage {advantage:+.2f}, {way}")
