MESSAGE = "the result is wrong"


import torch


def update_bias(bias, load, speed):
    return bias + speed * torch.tanh(load.mean() - load)
