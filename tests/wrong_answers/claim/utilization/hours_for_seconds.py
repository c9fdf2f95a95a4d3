MESSAGE = "the hours are taken for seconds"


def utilization(flops, gpu_hours, peaks, shares):
    best = sum(flops * share / peaks[name] for name, share in shares.items())
    return best / gpu_hours
