MESSAGE = "everything is held against the lowest peak"


def utilization(flops, gpu_hours, peaks, shares):
    return flops / (gpu_hours * 3600 * peaks["bf16"])
