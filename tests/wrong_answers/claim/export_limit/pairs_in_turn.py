MESSAGE = "only where the pairs are in another order"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    limit = rule[0][0]
    for least, density in rule[1:]:
        limit = min(limit, max(least, density * die_mm2))
    return tpp, limit
