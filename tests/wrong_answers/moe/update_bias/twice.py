MESSAGE = "the result is wrong"


import torch


def update_bias(bias, load, speed):
    return bias + 2 * speed * torch.sign(load.mean() - load)
