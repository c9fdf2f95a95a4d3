MESSAGE = "only where the model never writes the drafted token"


import math


def accept_draft(p, q, draft, uniform):
    kept = 0
    for place, token in enumerate(draft):
        if math.log(uniform[place]) >= math.log(p[place, token]) - math.log(q[place, token]):
            break
        kept += 1
    if kept == len(draft):
        return kept, p[kept]
    left = (p[kept] - q[kept]).clamp(min=0)
    return kept, left / left.sum()
