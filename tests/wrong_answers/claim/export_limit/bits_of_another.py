MESSAGE = "the bits of one format meet the rate of another"


def export_limit(rates, die_mm2, rule):
    tpp = max(rates.keys()) * max(rates.values())
    return tpp, min(max(least, density * die_mm2) for least, density in rule)
