MESSAGE = "it raises ValueError: min()"


def place(load, n_ranks, n_redundant):
    experts = range(len(load))
    replicas = [1 for _ in experts]
    for _ in range(n_redundant):
        open_to_more = [e for e in experts if replicas[e] < n_ranks]
        replicas[max(open_to_more, key=lambda e: load[e] / replicas[e])] += 1
    share = [load[e] / replicas[e] for e in experts]
    slots = sum(replicas) // n_ranks
    ranks = [[] for _ in range(n_ranks)]
    items = [e for e in experts for _ in range(replicas[e])]
    for e in sorted(items, key=lambda e: -share[e]):
        may_take = [rank for rank in ranks if len(rank) < slots and e not in rank]
        min(may_take, key=lambda rank: max([share[i] for i in rank], default=0)).append(e)
    return ranks
