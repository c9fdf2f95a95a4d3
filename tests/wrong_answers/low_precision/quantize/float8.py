MESSAGE = "values: it returns"


import torch


def quantize(x, block):
    values, scales = [], []
    for row in torch.from_numpy(x).split(block[0]):
        parts = row.split(block[1], dim=1)
        scale = [float(part.abs().max()) / 448 or 1.0 for part in parts]
        scaled = [part / s for part, s in zip(parts, scale, strict=True)]
        values.append(torch.cat(scaled, dim=1))
        scales.append(scale)
    values = torch.cat(values).to(torch.float8_e4m3fn)
    return values, torch.tensor(scales, dtype=torch.float64)
