MESSAGE = "the result is wrong"


import torch


def update_bias(bias, load, speed):
    return (bias + speed * torch.sign(load.mean() - load)).clamp(-1, 1)
