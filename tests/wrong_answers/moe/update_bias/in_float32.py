MESSAGE = "only where the loads are large"


import torch


def update_bias(bias, load, speed):
    load = load.float()
    return bias + speed * torch.sign(load.mean() - load).double()
