MESSAGE = "the result has shape [8]; return [2, 4]"


def advantages(rewards):
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True)
    return ((rewards - mean) / (deviation + 1e-4)).flatten()
