MESSAGE = "the loss is built from P alone"


def balance_loss(scores, experts):
    shares = scores / scores.sum(dim=1, keepdim=True)
    return scores.shape[1] * (shares.mean(dim=0) ** 2).sum()
