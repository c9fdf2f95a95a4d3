MESSAGE = "replicas are dealt out by the number that a rank holds; they go to the rank"


def place(load, n_ranks, n_redundant):
    experts = range(len(load))
    replicas = [1 for _ in experts]
    for _ in range(n_redundant):
        open_to_more = [e for e in experts if replicas[e] < n_ranks]
        replicas[max(open_to_more, key=lambda e: load[e] / replicas[e])] += 1
    items = [e for e in experts for _ in range(replicas[e])]
    items.sort(key=lambda e: -load[e] / replicas[e])
    return [items[rank::n_ranks] for rank in range(n_ranks)]
