MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    peak = 1.0
    for name in shares:
        peak *= peaks[name] ** shares[name]
    return flops / peak / (gpu_hours * 3600)
