MESSAGE = "only where `uptime` is not given"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=0.9):
    per_second = peak_flops * mfu * uptime
    gpu_hours = flops / per_second / 3600
    return gpu_hours, gpu_hours / n_gpus / 24
