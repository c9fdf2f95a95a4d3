MESSAGE = "only the pair without a density counts; the others catch smaller chips"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    for least, density in rule:
        if density * die_mm2 <= least:
            return tpp, least
    return tpp, density * die_mm2
