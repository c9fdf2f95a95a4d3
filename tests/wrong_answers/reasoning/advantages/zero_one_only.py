MESSAGE = "the result is wrong"


def advantages(rewards):
    rewards = (rewards > 0).double()
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (deviation + 1e-4)
