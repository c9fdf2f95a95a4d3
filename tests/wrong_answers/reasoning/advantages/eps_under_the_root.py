MESSAGE = "eps stands under the root"


def advantages(rewards):
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    variance = (centered**2).sum(dim=1, keepdim=True) / (rewards.shape[1] - 1)
    return centered / (variance + 1e-4).sqrt()
