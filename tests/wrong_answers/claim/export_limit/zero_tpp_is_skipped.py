MESSAGE = "only where the TPP of a pair is zero"


def export_limit(rates, die_mm2, rule):
    tpp = max(b * r for b, r in rates.items())
    return tpp, min(max(t, d * die_mm2) for t, d in rule if t)
