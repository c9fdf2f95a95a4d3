MESSAGE = "the step is returned"


import torch


def update_bias(bias, load, speed):
    return torch.sign(load.mean() - load) * speed
