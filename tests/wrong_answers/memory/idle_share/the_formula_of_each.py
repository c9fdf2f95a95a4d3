MESSAGE = "the result is wrong"


def idle_share(orders, forward, backward, weight):
    n_stages, kinds = len(orders), {kind for kind, _ in orders[0]}
    n_microbatches = sum(kind == "F" for kind, _ in orders[0])
    late = 2 * weight if "w" in kinds else 0
    idle = (n_stages - 1) * (forward + backward - late)
    return idle / (idle + n_microbatches * (forward + backward))
