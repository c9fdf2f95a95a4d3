MESSAGE = "it returns"


def run_time(flops, n_gpus, peak_flops, mfu, uptime=1.0):
    return flops / (peak_flops * mfu * uptime * 3600)
