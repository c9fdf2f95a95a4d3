MESSAGE = "the result is wrong"


import torch


def update_bias(bias, load, speed):
    new = bias + speed * torch.sign(load.mean() - load)
    return new - new.mean()
