MESSAGE = "the density is left out"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    return tpp, min(least for least, density in rule)
