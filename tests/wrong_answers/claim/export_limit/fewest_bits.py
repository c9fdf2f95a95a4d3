MESSAGE = "the result is wrong"


def export_limit(rates, die_mm2, rule):
    bits = min(rates)
    return bits * rates[bits], min(max(t, d * die_mm2) for t, d in rule)
