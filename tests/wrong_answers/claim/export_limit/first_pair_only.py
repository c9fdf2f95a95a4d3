MESSAGE = "only the pair without a density counts"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    return tpp, rule[0][0]
