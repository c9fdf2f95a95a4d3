MESSAGE = "eps is not added to the standard deviation"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True)
    deviation[deviation == 0] = 1
    return (rewards - mean) / deviation
