MESSAGE = "nothing is cut off"


def fp8_product(q, q_scale, r, r_scale, block, group, bits):
    scales = r_scale.repeat(block, axis=0)[: len(r)].repeat(block, axis=1)
    return (q * q_scale.repeat(block, axis=1)) @ (r * scales).T
