MESSAGE = "the result is wrong"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = (rewards - mean).abs().mean(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 1e-4)
