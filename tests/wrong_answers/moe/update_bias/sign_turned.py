MESSAGE = "the sign is turned"


import torch


def update_bias(bias, load, speed):
    return bias + speed * torch.sign(load - load.mean())
