MESSAGE = "of the draft; keep"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if uniform[place] >= p[place, token] / q[place, token]:
            kept += 1
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept - 1] - q[kept - 1]).clamp(min=0)
    return kept, left / left.sum()
