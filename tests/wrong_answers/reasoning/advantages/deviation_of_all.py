MESSAGE = "the standard deviation goes over all groups"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    return (rewards - mean) / (rewards.std() + 1e-4)
