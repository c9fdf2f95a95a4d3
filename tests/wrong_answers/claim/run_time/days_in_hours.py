MESSAGE = "the second result is in hours"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    hours = flops / (peak_flops * mfu * uptime * 3600)
    return hours, hours / n_gpus
