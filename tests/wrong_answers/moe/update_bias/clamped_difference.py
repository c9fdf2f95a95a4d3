MESSAGE = "only where a load is next to the mean"


def update_bias(bias, load, speed):
    return bias + speed * (load.mean() - load).clamp(-1, 1)
