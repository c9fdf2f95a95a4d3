MESSAGE = "the result is wrong"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    per_second = peak_flops * mfu * uptime
    gpu_hours = flops / per_second / 3600
    return gpu_hours, flops / peak_flops / mfu / 3600 / n_gpus / 24
