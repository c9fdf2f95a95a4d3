MESSAGE = "the result is wrong"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    mean = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 1e-4)
