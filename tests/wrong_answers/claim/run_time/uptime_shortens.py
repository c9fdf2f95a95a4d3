MESSAGE = "the uptime multiplies"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    hours = flops / peak_flops / mfu / 3600 * uptime
    return hours, hours / n_gpus / 24
