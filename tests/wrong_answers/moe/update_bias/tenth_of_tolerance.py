MESSAGE = "only where the loads lie on all sides of the mean"


def update_bias(bias, load, speed):
    mean = load.mean()
    step = (load < 0.9 * mean).double() - (load > 1.1 * mean).double()
    return bias + speed * step
