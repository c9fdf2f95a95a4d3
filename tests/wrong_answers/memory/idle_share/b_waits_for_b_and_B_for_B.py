MESSAGE = "the result is wrong"


def idle_share(orders, forward, backward, weight):
    takes = {"F": forward, "B": backward, "b": backward - weight, "w": weight}
    ends, free, at = {}, [0 for _ in orders], [0 for _ in orders]
    for _ in range(sum(map(len, orders))):
        for stage, order in enumerate(orders):
            if at[stage] == len(order):
                continue
            kind, batch = order[at[stage]]
            need = None
            if kind == "F" and stage > 0:
                need = "F", batch, stage - 1
            if kind in ("B", "b") and stage < len(orders) - 1:
                need = kind, batch, stage + 1
            if need is None or need in ends:
                free[stage] = max(free[stage], ends.get(need, 0)) + takes[kind]
                name = kind
                ends[name, batch, stage] = free[stage]
                at[stage] += 1
    work = sum(takes[kind] for kind, _ in orders[0])
    return 1 - work / max(free)
