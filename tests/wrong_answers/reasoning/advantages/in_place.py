MESSAGE = "it changes its argument rewards"


def advantages(rewards):
    deviation = rewards.std(dim=1, keepdim=True)
    rewards -= rewards.mean(dim=1, keepdim=True)
    return rewards / (deviation + 1e-4)
