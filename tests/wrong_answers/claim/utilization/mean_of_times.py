MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    seconds = sum(flops * shares[n] / peaks[n] for n in shares) / len(shares)
    return seconds / (gpu_hours * 3600)
