MESSAGE = "the ranks are exchanged; of ranks that are equally busy the first takes a"


def place(load, n_ranks, n_redundant):
    experts = range(len(load))
    replicas = [1 for _ in experts]
    for _ in range(n_redundant):
        open_to_more = [e for e in experts if replicas[e] < n_ranks]
        replicas[max(open_to_more, key=lambda e: load[e] / replicas[e])] += 1
    items = [e for e in experts for _ in range(replicas[e])]
    items.sort(key=lambda e: -load[e] / replicas[e])
    ranks = [[] for _ in range(n_ranks)]
    for number, e in enumerate(items):
        turn, at = divmod(number, n_ranks)
        ranks[at if turn % 2 == 0 else n_ranks - 1 - at].append(e)
    return ranks
