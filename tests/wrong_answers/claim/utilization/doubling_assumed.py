MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    slow = min(peaks.values())
    seconds = sum(flops * s / slow / (1 if peaks[n] == slow else 2) for n, s in shares.items())
    return seconds / (gpu_hours * 3600)
