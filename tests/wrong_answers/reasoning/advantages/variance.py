MESSAGE = "the rewards are divided by their variance"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    return (rewards - mean) / (rewards.var(dim=1, keepdim=True) + 1e-4)
