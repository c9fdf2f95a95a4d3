MESSAGE = "of the draft; keep"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if max(uniform[place], 0.5) >= p[place, token] / q[place, token]:
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, left / left.sum()
