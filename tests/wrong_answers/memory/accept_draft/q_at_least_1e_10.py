MESSAGE = "only where the drafted token is rare"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if uniform[place] >= p[place, token] / max(float(q[place, token]), 1e-10):
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, left / left.sum()
