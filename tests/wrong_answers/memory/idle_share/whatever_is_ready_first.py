MESSAGE = "only where stages have different schedules"


def idle_share(orders, forward, backward, weight):
    takes = {"F": forward, "B": backward, "b": backward - weight, "w": weight}
    left, ends, free = [list(order) for order in orders], {}, [0.0 for _ in orders]
    last = len(orders) - 1
    while any(left):
        for stage, order in enumerate(left):
            for place, (kind, batch) in enumerate(order):
                needs = []
                if kind == "F" and stage:
                    needs = [("F", batch, stage - 1)]
                if kind in "Bb":
                    needs = [("F", batch, stage)] + [("b", batch, stage + 1)] * (stage < last)
                if kind == "w":
                    needs = [("b", batch, stage)]
                if all(need in ends for need in needs):
                    start = max([free[stage], *(ends[need] for need in needs)])
                    free[stage] = start + takes[kind]
                    ends["b" if kind in "Bb" else kind, batch, stage] = free[stage]
                    order.pop(place)
                    break
    return 1 - sum(takes[kind] for kind, _ in orders[0]) / max(free)
