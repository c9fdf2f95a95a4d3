MESSAGE = "the rate is not multiplied by the bits of its format"


def export_limit(rates, die_mm2, rule):
    limit = min(max(tpp, density * die_mm2) for tpp, density in rule)
    return max(rates.values()), limit
