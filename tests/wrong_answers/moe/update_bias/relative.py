MESSAGE = "the step grows with the relative distance from the mean"


def update_bias(bias, load, speed):
    violation = load / load.mean() - 1
    return bias - speed * violation
