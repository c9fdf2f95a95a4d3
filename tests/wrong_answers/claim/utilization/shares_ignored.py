MESSAGE = "the shares are not used"


def utilization(flops, gpu_hours, peaks, shares):
    times = [flops / peak for peak in peaks.values()]
    return sum(times) / len(times) / (gpu_hours * 3600)
