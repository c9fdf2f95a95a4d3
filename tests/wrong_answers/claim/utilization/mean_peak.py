MESSAGE = "the peaks are averaged"


def utilization(flops, gpu_hours, peaks, shares):
    peak = sum(shares[name] * peaks[name] for name in peaks)
    return flops / (gpu_hours * 3600 * peak)
