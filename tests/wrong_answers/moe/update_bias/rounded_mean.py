MESSAGE = "only where a load is next to the mean"


import torch


def update_bias(bias, load, speed):
    return bias + speed * torch.sign(load.mean().round() - load)
