MESSAGE = "the count is right, and the distribution after a refused token is wrong"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if uniform[place] >= p[place, token] / q[place, token]:
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, (left == left.max()).double()
