MESSAGE = "replicas; by the first step"


def place(load, n_ranks, n_redundant):
    order = sorted(range(len(load)), key=lambda e: -load[e])
    replicas = [1] * len(load)
    given = 0
    while given < n_redundant:
        for e in order:
            if given < n_redundant and replicas[e] < n_ranks:
                replicas[e] += 1
                given += 1
    share = [load[e] / replicas[e] for e in range(len(load))]
    slots = sum(replicas) // n_ranks
    ranks = [[] for _ in range(n_ranks)]
    items = [e for e in range(len(load)) for _ in range(replicas[e])]
    for e in sorted(items, key=lambda e: -share[e]):
        may_take = [rank for rank in ranks if len(rank) < slots and e not in rank]
        may_take = may_take or [rank for rank in ranks if len(rank) < slots]
        min(may_take, key=lambda rank: sum(share[i] for i in rank)).append(e)
    return ranks
