MESSAGE = "the formats are added"


def export_limit(rates, die_mm2, rule):
    tpp = 0
    for bits, rate in rates.items():
        tpp += bits * rate
    return tpp, min(max(least, density * die_mm2) for least, density in rule)
