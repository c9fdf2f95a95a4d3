MESSAGE = "the mean goes over all groups"


def advantages(rewards):
    return (rewards - rewards.mean()) / (rewards.std(dim=1, keepdim=True) + 1e-4)
