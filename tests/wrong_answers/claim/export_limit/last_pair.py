MESSAGE = "the result is wrong"


def export_limit(rates, die_mm2, rule):
    tpp = max(b * r for b, r in rates.items())
    least, density = rule[-1]
    return tpp, max(least, density * die_mm2)
