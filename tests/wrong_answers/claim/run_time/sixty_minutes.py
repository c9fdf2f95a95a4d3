MESSAGE = "every result is 60 times the right one"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    per_second = peak_flops * mfu * uptime
    gpu_hours = flops / per_second / 60
    return gpu_hours, gpu_hours / n_gpus / 24
