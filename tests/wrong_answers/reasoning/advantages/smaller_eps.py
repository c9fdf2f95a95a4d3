MESSAGE = "eps is smaller than 1e-4"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    return (rewards - mean) / (rewards.std(dim=1, keepdim=True) + 1e-6)
