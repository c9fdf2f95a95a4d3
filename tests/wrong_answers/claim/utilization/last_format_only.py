MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    for name in shares:
        seconds = flops * shares[name] / peaks[name]
    return seconds / (gpu_hours * 3600)
