MESSAGE = "one number of a pair is enough for you"


def export_limit(rates, die_mm2, rule):
    tpp = max(bits * rate for bits, rate in rates.items())
    limits = []
    for least, density in rule:
        limits += [least, density * die_mm2]
    return tpp, min(limits)
