MESSAGE = "it raises KeyError"


def utilization(flops, gpu_hours, peaks, shares):
    best = flops * shares["bf16"] / peaks["bf16"]
    best += flops * shares["fp8"] / peaks["fp8"]
    return best / (gpu_hours * 3600)
