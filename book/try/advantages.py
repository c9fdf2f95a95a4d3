# Eight answers to one problem. A reward says which were right; the group says how rare that was.
import math

rewards = [0, 0, 1, 0, 0, 0, 1, 0]  # try all ones, or a single one

mean = sum(rewards) / len(rewards)
squares = sum((reward - mean) ** 2 for reward in rewards)
spread = math.sqrt(squares / (len(rewards) - 1))

for number, reward in enumerate(rewards):
    advantage = (reward - mean) / (spread + 1e-4)
    way = "as it was"
    if advantage:
        way = "more likely" if advantage > 0 else "less likely"
    print(f"answer {number}: {reward}, advantage {advantage:+.2f}, {way}")
