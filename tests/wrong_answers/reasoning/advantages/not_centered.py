MESSAGE = "the mean is not taken away"


def advantages(rewards):
    return rewards / (rewards.std(dim=1, keepdim=True) + 1e-4)
