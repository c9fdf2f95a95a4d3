MESSAGE = "the result is wrong"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 2e-4)
