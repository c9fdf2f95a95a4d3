MESSAGE = "only where a load is next to the mean"


import torch


def update_bias(bias, load, speed):
    error = load.mean() - load
    return bias + speed * torch.sign(error) * (error.abs() > 1)
