MESSAGE = "the standard deviation divides by G;"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True, unbiased=False)
    return (rewards - mean) / (deviation + 1e-4)
