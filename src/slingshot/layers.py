"""The feed-forward networks that a language model and a mixture of experts share.

Each reads a token's vector, computes wider hidden channels from it, and maps these back.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.tensors import check_input, check_output


class SwiGLU(nn.Module):
    """One gated feed-forward network, ``down(silu(gate(x)) * up(x))``: dense, or a shared expert.

    Two linear layers: ``gate_up.weight [2 * d_hidden, d_model]``, the gate in its first half, and
    ``down.weight [d_model, d_hidden]``. Called on ``x [..., d_model]``. Source: Shazeer,
    arXiv 2002.05202, eq. 6.
    """

    d_model: int

    def __init__(self, d_model: int, d_hidden: int) -> None:
        """Draw the weights; raise ``ValueError`` for a size below 1."""
        super().__init__()
        require.counts(d_model=d_model, d_hidden=d_hidden)
        self.d_model = d_model
        self.gate_up = undrawn_linear(d_model, 2 * d_hidden)
        self.down = undrawn_linear(d_hidden, d_model)
        draw(self.gate_up.weight, self.down.weight)

    def forward(self, x: Float[Tensor, "*T d"]) -> Float[Tensor, "*T d"]:
        """Return a tensor of the shape of ``x [..., d_model]``.

        Raises ``ValueError`` for an ``x`` of another width or type, and for results that are not
        finite.
        """
        x = check_input(x, self.d_model, self.gate_up)
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        output: Tensor = self.down(F.silu(gate) * up)
        check_output(output, x)
        return output


class SquaredReLU(nn.Module):
    """A feed-forward network without a gate, ``down(relu(up(x))²)``.

    Source: So et al., arXiv 2109.08668, §4.2.
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        """Draw the weights; raise ``ValueError`` for a size below 1."""
        super().__init__()
        require.counts(d_model=d_model, d_hidden=d_hidden)
        self.d_model = d_model
        self.up = undrawn_linear(d_model, d_hidden)
        self.down = undrawn_linear(d_hidden, d_model)
        draw(self.up.weight, self.down.weight)

    def forward(self, x: Float[Tensor, "*T d"]) -> Float[Tensor, "*T d"]:
        """Return a tensor of the shape of ``x [..., d_model]``.

        Raises ``ValueError`` for an ``x`` of another width or type, and for results that are not
        finite.
        """
        x = check_input(x, self.d_model, self.up)
        output: Tensor = self.down(self.up(x).relu().square())
        check_output(output, x)
        return output


def undrawn_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without bias whose weight is not drawn yet; random numbers are kept."""
    layer: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, inputs, outputs, bias=False
    )
    return layer


def draw(*matrices: Tensor) -> None:
    """Draw each with std 1 / √(its inputs), so that outputs are about as large as inputs."""
    for matrix in matrices:
        nn.init.normal_(matrix, std=1 / math.sqrt(matrix.shape[-1]))
