MESSAGE = "it changes its argument shares"


def utilization(flops, gpu_hours, peaks, shares):
    best = 0
    while shares:
        name, share = shares.popitem()
        best += flops * share / peaks[name]
    return best / (gpu_hours * 3600)
