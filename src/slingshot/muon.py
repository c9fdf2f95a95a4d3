"""Muon, an optimizer for matrices: every direction of an update is made equally long.

The gradient of a weight matrix is often dominated by a few directions, and the others hardly move.
Muon keeps a running mean of gradients as SGD with momentum does, and replaces its singular values
by about 1: from U S Vᵀ to U Vᵀ. No singular values are computed for it. A polynomial whose odd
powers act on the singular values alone is applied a few times, and takes all of them near 1.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

# a x + b x³ + c x⁵ rises so steeply at 0 that five rounds take all numbers from 0.002 to 1 to
# between 0.68 and 1.21. They do not converge to 1, which does no harm.
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return ``matrices [N, rows, columns]`` with all singular values near 1, their vectors kept.

    Each matrix is first divided by its Frobenius norm, so that no singular value is above 1. One of
    zeros stays zero. Source: Newton-Schulz iteration with the coefficients of Jordan et al., "Muon"
    (2024). Raises ``ValueError`` for another number of dimensions.
    """
    if matrices.ndim != 3:
        raise ValueError(
            f"matrices has shape {tuple(matrices.shape)}; pass [number, rows, columns]"
        )
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for parameters ``[rows, columns]``.

    A step is ``lr`` times `orthogonalize` of the momentum, times ``sqrt(max(1, rows / columns))``,
    and ``lr * weight_decay`` of the weight is taken away. Vectors, embeddings and the output head
    are left to another optimizer.

    It takes the steps of ``torch.optim.Muon``, in float32 and for all matrices of one shape at
    once. PyTorch 2.13 takes them in bfloat16, one matrix after another: for matrices as small as
    ours that costs more than the arithmetic, and a processor without bfloat16 has to imitate it.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). Raises
    ``ValueError`` for a parameter that is no matrix, or numbers that cannot be meant.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        """Check the numbers and the parameters."""
        if not 0 < lr < float("inf") or not 0 <= weight_decay < float("inf"):
            raise ValueError(
                f"lr is {lr} and weight_decay {weight_decay}; give positive numbers, or no decay"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; give a share below 1")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"a parameter has shape {tuple(parameter.shape)}; Muon moves matrices, "
                        "leave the others to AdamW"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                ahead = [self._look_ahead(parameter, group["momentum"]) for parameter in parameters]
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(
                    parameters, orthogonalize(torch.stack(ahead)), strict=True
                ):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=rate)
        return loss

    def _look_ahead(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Update the running mean of gradients, and return it with the newest counted twice."""
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(gradient)
        state["mean"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["mean"], momentum)
