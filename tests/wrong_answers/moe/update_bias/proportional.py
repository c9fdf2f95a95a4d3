MESSAGE = "the step grows with the distance from the mean"


def update_bias(bias, load, speed):
    return bias - speed * (load - load.mean())
