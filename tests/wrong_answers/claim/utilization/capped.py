MESSAGE = "the result is wrong"


def utilization(flops, gpu_hours, peaks, shares):
    seconds = sum(flops * shares[n] / peaks[n] for n in shares)
    return round(seconds / (gpu_hours * 3600), 4)
