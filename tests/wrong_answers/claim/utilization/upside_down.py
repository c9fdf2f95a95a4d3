MESSAGE = "the ratio is upside down"


def utilization(flops, gpu_hours, peaks, shares):
    best = sum(flops * share / peaks[name] for name, share in shares.items())
    return gpu_hours * 3600 / best
