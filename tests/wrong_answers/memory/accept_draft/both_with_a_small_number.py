MESSAGE = "a token that the model never writes is kept where the uniform number is 0; keep"


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if uniform[place] >= (p[place, token] + 1e-9) / (q[place, token] + 1e-9):
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, left / left.sum()
