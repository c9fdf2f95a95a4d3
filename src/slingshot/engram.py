"""A memory of phrases: rows of tables to which the last few tokens point, without a search.

A mixture of experts holds weights of which each token *multiplies* a few. A table holds weights of
which each token *reads* a few, and reading costs next to nothing. Which rows is a matter of the
tokens alone, so they are known before the model has computed anything. What was read is the same
wherever the phrase stands; a gate asks the hidden state whether it belongs here.

Source: Cheng et al., arXiv 2601.07372 (Engram), §2. Left out: joining tokens that mean the same, a
short convolution of what was read, and learned weights of the norms in the gate.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require
from slingshot.layers import draw, undrawn_linear
from slingshot.tensors import at_least_float32, check_input, check_shapes, check_squares, whole

_SEED = 2601


def phrase_slots(
    tokens: Integer[Tensor, "B S"], n_tokens: int, multipliers: Int64[Tensor, "H N"], n_slots: int
) -> Int64[Tensor, "B S H"]:
    """Return the row to which the ``n_tokens`` that end at each place point, for each hash.

    An id plus 1 is multiplied by a number of its place in the phrase; the products are joined by
    exclusive or; the remainder by ``n_slots`` is the row. Before the first token stand zeros. Two
    phrases may get the same row, and seldom do so in a second hash, with other ``multipliers``
    ``[H, N]``, of which the first ``n_tokens`` of each row are used, the last token's first.

    Source: Engram, eqs. 1 and 2, whose tables have a prime number of rows. Raises ``ValueError``
    for negative ids, for what is no ``[B, S]``, for multipliers that are not whole, and for counts
    below 1.
    """
    tokens = whole("tokens", tokens, "pass the ids of tokens")
    multipliers = whole("multipliers", multipliers, "pass odd numbers in int64")
    check_shapes("pass [B, S] and [H, N]", tokens=tokens, multipliers=multipliers)
    require.counts(n_tokens=n_tokens, n_slots=n_slots)
    if n_tokens > multipliers.shape[1]:
        raise ValueError(
            f"n_tokens is {n_tokens} with multipliers for {multipliers.shape[1]}; give more of them"
        )
    if tokens.numel() and tokens.min() < 0:
        raise ValueError(f"token {int(tokens.min())} is negative; pass ids from 0 on")
    padded = F.pad(tokens + 1, (n_tokens - 1, 0))
    mixed = torch.zeros_like(tokens).unsqueeze(-1)
    for back in range(n_tokens):
        start = n_tokens - 1 - back
        ids = padded[:, start : start + tokens.shape[1]]
        mixed = mixed ^ (ids.unsqueeze(-1) * multipliers[:, back])
    return mixed.remainder(n_slots)


class Engram(nn.Module):
    """What a phrase says at its last token, read from tables and weighed by the hidden state.

    Called on ``x [B, S, d_model]`` and ``tokens [B, S]``, the ids at the same places. Returns
    what is to be *added* to ``x``, which is zero at first. For each of ``orders``, a number of
    tokens, ``n_heads`` tables of ``n_slots`` rows of ``d_slot`` channels; all tables are one
    ``table.weight [n_tables * n_slots, d_slot]``. The rows that were read, side by side, become
    a ``key`` and a ``value``, both ``[d_model, n_tables * d_slot]``, and the gate is
    ``sigmoid(norm(x) . norm(key) / sqrt(d_model))``.

    Source: Engram, eqs. 1 to 4. Raises ``ValueError`` for sizes below 1, and without ``orders``.
    """

    multipliers: Tensor

    def __init__(
        self,
        d_model: int,
        n_slots: int,
        d_slot: int,
        orders: Sequence[int] = (2, 3),
        n_heads: int = 2,
    ) -> None:
        """Draw the tables and the keys; the values start at zero."""
        super().__init__()
        require.counts(d_model=d_model, n_slots=n_slots, d_slot=d_slot, n_heads=n_heads)
        if not isinstance(orders, Sequence) or not orders:
            raise ValueError(f"orders is {orders!r}; give the lengths of phrases, such as (2, 3)")
        for order in orders:
            require.counts(order=order)
        self.d_model, self.n_slots, self.orders = d_model, n_slots, tuple(orders)
        self.n_heads, self.n_tables = n_heads, n_heads * len(self.orders)
        self.table = nn.Embedding(self.n_tables * n_slots, d_slot)
        self.key = undrawn_linear(self.n_tables * d_slot, d_model)
        self.value = undrawn_linear(self.n_tables * d_slot, d_model)
        draw(self.key.weight)
        nn.init.zeros_(self.value.weight)
        # Odd, so that no bit of an id is lost; the same for each model, as a tokenizer is.
        generator = torch.Generator().manual_seed(_SEED)
        shape = (len(self.orders), n_heads, max(self.orders))
        drawn = torch.randint(1 << 30, shape, generator=generator)
        self.register_buffer("multipliers", 2 * drawn + 1)

    def slots(self, tokens: Integer[Tensor, "B S"]) -> Int64[Tensor, "B S K"]:
        """Return the rows of ``table.weight`` that are read at each place, one for each table."""
        found = torch.cat(
            [
                phrase_slots(tokens, order, multipliers, self.n_slots)
                for order, multipliers in zip(self.orders, self.multipliers, strict=True)
            ],
            dim=-1,
        )
        return found + self.n_slots * torch.arange(self.n_tables, device=found.device)

    def gate(
        self, x: Float[Tensor, "B S d"], key: Float[Tensor, "B S d"]
    ) -> Float[Tensor, "B S 1"]:
        """Return how far what was read belongs here, from 0 to 1.

        Raises ``ValueError`` for another width, and when the two do not belong together.
        """
        check_shapes(f"pass [B, S, {self.d_model}] twice", x=x, key=key)
        check_squares(x)
        wide, key = at_least_float32(x), at_least_float32(key)
        width = (self.d_model,)
        score = (F.rms_norm(wide, width) * F.rms_norm(key, width)).sum(-1, keepdim=True)
        return torch.sigmoid(score / math.sqrt(self.d_model)).to(x.dtype)

    def forward(
        self, x: Float[Tensor, "B S d"], tokens: Integer[Tensor, "B S"]
    ) -> Float[Tensor, "B S d"]:
        """Return what is to be added to ``x``.

        Raises ``ValueError`` for another width or type of ``x``, when the two do not belong
        together, and for negative ids.
        """
        x = check_input(x, self.d_model, self.key)
        tokens = whole("tokens", tokens, "pass the ids of tokens")
        check_shapes(f"pass [B, S, {self.d_model}] and [B, S]", x=x, tokens=tokens)
        read = self.table(self.slots(tokens)).flatten(-2)
        output: Tensor = self.gate(x, self.key(read)) * self.value(read)
        return output

    def extra_repr(self) -> str:
        """Return the settings, for ``print(engram)``."""
        return f"orders={self.orders}, n_heads={self.n_heads}, n_slots={self.n_slots}"
