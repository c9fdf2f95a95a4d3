MESSAGE = "it changes its argument bias"


import torch


def update_bias(bias, load, speed):
    bias += speed * torch.sign(load.mean() - load)
    return bias
