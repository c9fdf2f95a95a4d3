MESSAGE = "only where the hours are few"


def utilization(flops, gpu_hours, peaks, shares):
    seconds = sum(flops * shares[n] / peaks[n] for n in shares)
    return seconds / (int(gpu_hours) * 3600 or 1)
