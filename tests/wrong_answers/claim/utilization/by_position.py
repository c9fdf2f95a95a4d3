MESSAGE = "only where the dictionaries are in different orders"


def utilization(flops, gpu_hours, peaks, shares):
    seconds = sum(flops * s / p for p, s in zip(peaks.values(), shares.values()))
    return seconds / (gpu_hours * 3600)
