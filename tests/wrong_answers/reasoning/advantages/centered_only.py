MESSAGE = "nothing is divided by the standard deviation"


def advantages(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)
