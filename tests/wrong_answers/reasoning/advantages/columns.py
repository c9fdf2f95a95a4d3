MESSAGE = "a group is a row"


def advantages(rewards):
    return (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0) + 1e-4)
