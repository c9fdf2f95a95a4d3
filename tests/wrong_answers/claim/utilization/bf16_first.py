MESSAGE = "only where the formats have other names"


def utilization(flops, gpu_hours, peaks, shares):
    seconds = 0
    for name in ("bf16", "fp8", "fp4"):
        seconds += flops * shares.get(name, 0) / peaks.get(name, 1)
    return seconds / (gpu_hours * 3600)
