"""The router that never learns whom to ask: a table says which experts a token has.

It is the control for every claim about what a router learns. It also stands in models: DeepSeek-V4
(arXiv 2606.19348) routes its first three mixture layers by the token alone.
"""

import math

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from slingshot import require
from slingshot.moe.routing import Routing, expert_scores, gate_weights, router_logits
from slingshot.tensors import check_shapes, check_within, first, real, whole


class HashRouter(nn.Module):
    """Send each token to the experts that ``table [V, k]`` has for its id; learn only the gate.

    Parameter ``weight [E, d_model]`` is that of a `TopKRouter`. Its scores become the weights of
    the experts' answers and choose nobody, so an expert sees the same tokens from the first step to
    the last. ``hash_table`` makes a table in which all experts are about equally busy.

    Source: Roller et al., arXiv 2106.04426, §3, with the learned gate of DeepSeek-V3. Raises
    ``ValueError`` unless ``table`` is ``[V, k]``, its rows name k different ones of ``n_experts``,
    and ``d_model`` is at least 1.
    """

    table: Tensor

    def __init__(self, d_model: int, n_experts: int, table: Integer[Tensor, "V k"]) -> None:
        """Draw ``weight`` as a `TopKRouter` does; keep ``table`` as a buffer."""
        super().__init__()
        require.counts(d_model=d_model)
        table = whole("table", table, "pass the experts of each token, int64")
        if table.ndim != 2 or not table.shape[1]:
            raise ValueError(f"table has shape {tuple(table.shape)}; pass [tokens, experts]")
        check_within("expert", table, n_experts, "the table names experts that there are")
        ordered = table.sort(dim=1).values
        if (twice := (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)).any():
            token = int(twice.nonzero()[0])
            raise ValueError(f"table[{token}] is {table[token].tolist()}; name each expert once")
        self.d_model = d_model
        self.n_experts = n_experts
        self.top_k = table.shape[1]
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(d_model))
        self.register_buffer("table", table)

    def forward(self, x: Float[Tensor, "T d"], tokens: Integer[Tensor, "T"]) -> Routing:
        """Route ``x [T, d_model]``, what the model has made of the ids ``tokens [T]``.

        Raises ``ValueError`` when the two do not belong together, for an id that the table lacks,
        and for NaN and infinity.
        """
        x, tokens = real("x", x), whole("tokens", tokens, "pass the ids of the tokens")
        check_shapes(f"pass [T, {self.d_model}] and [T]", x=x, tokens=tokens)
        check_within("token", tokens, len(self.table), "make a table of the whole vocabulary")
        scores = expert_scores(router_logits(x, self.weight))
        experts = self.table[tokens]
        return Routing(gate_weights(scores, experts), experts, scores)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(router)``."""
        return (
            f"d_model={self.d_model}, n_experts={self.n_experts}, top_k={self.top_k}, "
            f"n_tokens={len(self.table)}"
        )


def hash_table(
    counts: Integer[Tensor, "V"], n_experts: int, top_k: int, *, seed: int = 0
) -> Int64[Tensor, "V k"]:
    """Deal ``top_k`` of ``n_experts`` experts to each token: ``[V, k]`` int64, balanced by count.

    ``counts [V]`` say how often each token occurs. The most frequent are dealt first, each to the
    experts with the least load so far; among equals ``seed`` decides. A token that is more frequent
    than an even share of the load makes its experts busier all the same.

    Source: balanced assignment, Roller et al., arXiv 2106.04426, §3.1. Raises ``ValueError`` unless
    ``counts`` is a vector of whole numbers from 0, and ``top_k`` within 1 and ``n_experts``.
    """
    counts = whole("counts", counts, "count the tokens, with bincount()")
    if counts.ndim != 1:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; pass [V]")
    if (negative := counts < 0).any():
        raise ValueError(f"{first('counts', counts, negative)}; give how often a token occurs")
    require.counts(n_experts=n_experts)
    require.whole("top_k", top_k, 1, n_experts)
    generator = torch.Generator().manual_seed(seed)
    load = torch.zeros(n_experts, dtype=torch.float64)
    table = torch.empty(len(counts), top_k, dtype=torch.int64)
    for token in counts.argsort(descending=True, stable=True).tolist():
        order = torch.randperm(n_experts, generator=generator)
        table[token] = order[load[order].argsort(stable=True)[:top_k]]
        # A token that does not occur still takes its turn, or one expert would get all of them.
        load[table[token]] += max(1, int(counts[token]))
    return table
