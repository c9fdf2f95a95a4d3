MESSAGE = "the sign is turned"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    return (mean - rewards) / (rewards.std(dim=1, keepdim=True) + 1e-4)
