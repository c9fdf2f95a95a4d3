MESSAGE = "the first result is the time of the cluster"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    speed = n_gpus * peak_flops * mfu * uptime
    hours = flops / speed / 3600
    return hours, hours / 24
