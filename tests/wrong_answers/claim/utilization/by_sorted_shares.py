MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    pairs = zip(sorted(peaks.values()), sorted(shares.values()))
    return sum(flops * s / p for p, s in pairs) / (gpu_hours * 3600)
