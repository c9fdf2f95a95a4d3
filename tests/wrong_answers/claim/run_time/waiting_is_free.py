MESSAGE = "the uptime lengthens the days and not the hours"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    hours = flops / (peak_flops * mfu * 3600)
    return hours, hours / uptime / n_gpus / 24
