MESSAGE = "the result is wrong"


def update_bias(bias, load, speed):
    step = (load == load.min()).double() - (load == load.max()).double()
    return bias + speed * step
