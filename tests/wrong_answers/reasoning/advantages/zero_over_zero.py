MESSAGE = "a group of equal rewards gets nan"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    return (rewards - mean) / rewards.std(dim=1, keepdim=True)
