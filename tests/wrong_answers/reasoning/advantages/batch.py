MESSAGE = "mean and standard deviation go over all groups"


def advantages(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)
