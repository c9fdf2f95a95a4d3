MESSAGE = "an expert with exactly the mean load is moved down"


def update_bias(bias, load, speed):
    new = bias - speed
    idle = load < load.mean()
    new[idle] = bias[idle] + speed
    return new
