MESSAGE = "everything is held against the highest peak"


def utilization(flops, gpu_hours, peaks, shares):
    return flops / (gpu_hours * 3600 * max(peaks.values()))
