MESSAGE = "only where a share is zero"


def utilization(flops, gpu_hours, peaks, shares):
    rate = 1 / sum(1 / (peaks[n] / shares[n]) for n in shares)
    return flops / rate / (gpu_hours * 3600)
