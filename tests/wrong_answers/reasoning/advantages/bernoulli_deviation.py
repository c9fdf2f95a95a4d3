MESSAGE = "the result is wrong"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = (mean * (1 - mean)).clamp(min=0).sqrt()
    return (rewards - mean) / (deviation + 1e-4)
