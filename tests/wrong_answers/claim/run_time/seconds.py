MESSAGE = "the peak is per second, and the result is called hours"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    hours = flops / (peak_flops * mfu * uptime)
    return hours, hours / n_gpus / 24
