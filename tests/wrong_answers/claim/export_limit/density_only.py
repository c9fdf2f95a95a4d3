MESSAGE = "the result is wrong"


def export_limit(rates, die_mm2, rule):
    tpp = max(b * r for b, r in rates.items())
    return tpp, min(d * die_mm2 for t, d in rule if d) if any(d for t, d in rule) else rule[0][0]
