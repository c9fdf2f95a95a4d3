MESSAGE = "all pairs must be reached for you"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    return tpp, max(max(least, density * die_mm2) for least, density in rule)
