MESSAGE = "the result is close, but not as close as float64 is; is a step rounded"


def advantages(rewards):
    rewards = rewards.float()
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 1e-4)
