MESSAGE = "the count is right, and the distribution after a draft that is kept is wrong"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if uniform[place] >= p[place, token] / q[place, token]:
            break
        kept += 1
    if not draft:
        return kept, p[kept]
    left = (p[min(kept, len(draft) - 1)] - q[min(kept, len(draft) - 1)]).clamp(min=0)
    return kept, left / left.sum()
