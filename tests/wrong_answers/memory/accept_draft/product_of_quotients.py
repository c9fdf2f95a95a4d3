MESSAGE = "of the draft; keep"


def accept_draft(p, q, draft, uniform):
    kept, product = 0, 1.0
    for place, token in enumerate(draft):
        product = product * min(1.0, float(p[place, token] / q[place, token]))
        if uniform[place] >= product:
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, left / left.sum()
