MESSAGE = "the result is wrong"


def advantages(rewards):
    mean = rewards.median(dim=1, keepdim=True).values
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 1e-4)
