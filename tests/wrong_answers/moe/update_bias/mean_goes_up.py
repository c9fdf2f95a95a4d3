MESSAGE = "an expert with exactly the mean load is moved up"


import torch


def update_bias(bias, load, speed):
    busy = load > load.mean()
    return torch.where(busy, bias - speed, bias + speed)
