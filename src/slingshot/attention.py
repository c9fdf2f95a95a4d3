"""Heads that look back, and what a token leaves for those that come after it.

A query is compared with the key of each token so far, and what it finds is a mean of their values.
Keys and values do not depend on what comes later, so they are kept: the cache. Heads may share
them (GQA), they may be unpacked from one small vector (MLA), and a query may look at the few
positions that an indexer has chosen (DSA).
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Float64, Integer, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import require, sizes
from slingshot.tensors import (
    at_least_float32,
    check_input,
    check_output,
    check_shapes,
    check_within,
    first,
    real,
    whole,
)

# --- positions -----------------------------------------------------------------------------------


def rotations(
    length: int,
    head_dim: int,
    base: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "2 S D"]:
    """Return the angles of RoPE as cosines and signed sines ``[2, length, head_dim]`` in ``dtype``.

    Pair j of the channels turns by ``base ** (-2j / head_dim)`` per position, so that the dot
    product of a query and a key depends on their distance alone. Both channels of a pair have its
    cosine; the first has minus its sine, the second its sine. Source: arXiv 2104.09864, eq. 15.
    Raises ``ValueError`` for an odd ``head_dim``, a ``base`` that is not above 0, and a ``length``
    below 0.
    """
    return _turns(_speeds(head_dim, base, device), length, dtype)


def _speeds(head_dim: int, base: float, device: torch.device) -> Float64[Tensor, "pairs"]:
    """By how much each pair of channels turns per position."""
    require.counts(head_dim=head_dim)
    require.even_for_rope(head_dim=head_dim)
    require.positive(base=base)
    return base ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)


def _turns(
    speed: Float[Tensor, "pairs"], length: int, dtype: torch.dtype
) -> Float[Tensor, "2 S 2*pairs"]:
    """The angles of ``length`` positions, as cosines and signed sines."""
    require.counts(least=0, length=length)
    angle = torch.arange(length, device=speed.device, dtype=torch.float64)[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)]).to(dtype)


def rotate(x: Float[Tensor, "*H S D"], rotation: Float[Tensor, "2 S D"]) -> Float[Tensor, "*H S D"]:
    """Turn each pair of channels of ``x [..., S, head_dim]`` by its position's angle.

    Channel j is paired with channel j + head_dim / 2, as transformers stores Llama's weights;
    rolled by half the channels, each has its partner in its place. Raises ``ValueError`` when
    ``rotation`` is not ``[2, S, head_dim]``.
    """
    if rotation.ndim != 3 or (2, *x.shape[-2:]) != rotation.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and rotation {tuple(rotation.shape)}; "
            "pass [..., S, head_dim] and [2, S, head_dim]"
        )
    cos, sin = rotation.to(x.dtype)
    turned: Tensor = x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
    return turned


def _check_sequence(x: Tensor, rotation: Tensor | None, head_dim: int) -> None:
    """Raise ``ValueError`` unless ``x`` is ``[B, S, d_model]`` and ``rotation``, if any, fits."""
    turns = None if rotation is None else tuple(rotation.shape)
    if x.ndim != 3 or turns not in (None, (2, x.shape[1], head_dim)):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and rotation {turns}; "
            f"pass [B, S, {x.shape[-1]}] and [2, S, {head_dim}]"
        )


# --- caches --------------------------------------------------------------------------------------


class TokenCache:
    """What the tokens so far have left in one layer: tensors whose dimension -2 counts tokens.

    ``room`` is the largest number of tokens; their memory is taken at the first ones. To take back
    the last tokens, set ``length`` to how many stay.
    """

    def __init__(self, room: int) -> None:
        """Start with no tokens; ``ValueError`` for no room."""
        require.counts(room=room)
        self.room = room
        self._length = 0
        self._parts: list[Tensor] = []

    @property
    def length(self) -> int:
        """How many tokens there are; it can be set to fewer, and ``ValueError`` for more."""
        return self._length

    @length.setter
    def length(self, n_tokens: int) -> None:
        if not 0 <= n_tokens <= self._length:
            raise ValueError(
                f"length is {n_tokens} with {self._length} tokens in the cache; "
                "take back tokens that are there"
            )
        self._length = n_tokens

    def _append(self, *parts: Tensor) -> list[Tensor]:
        """Store the next tokens ``[..., S, D]`` of each part, which are checked; return all."""
        if not self._length:
            self._parts = [
                part.new_empty(*part.shape[:-2], self.room, part.shape[-1]) for part in parts
            ]
        start, self._length = self._length, self._length + parts[0].shape[-2]
        for stored, part in zip(self._parts, parts, strict=True):
            stored[..., start : self._length, :] = part
        return [stored[..., : self._length, :] for stored in self._parts]

    def _check_next(self, name: str, part: Tensor, remedy: str) -> None:
        """Raise ``ValueError`` unless ``part`` has room and is as the first part so far."""
        if self._length + part.shape[-2] > self.room:
            raise ValueError(
                f"{part.shape[-2]} tokens come after {self._length} and room is {self.room}; "
                "make the cache with more room"
            )
        if not self._length:
            return
        stored = self._parts[0]
        if (*part.shape[:-2], part.shape[-1]) != (*stored.shape[:-2], stored.shape[-1]):
            raise ValueError(
                f"{name} has shape {tuple(part.shape)} and those in the cache "
                f"{tuple(stored.shape)}; {remedy}"
            )
        if part.dtype != stored.dtype:
            raise ValueError(
                f"{name} has dtype {part.dtype} and those in the cache {stored.dtype}; "
                "make a cache for each type"
            )

    def keep(
        self, n_kept: int, gaps: Integer[Tensor, "gaps"], fillers: Integer[Tensor, "gaps"]
    ) -> None:
        """Keep ``n_kept`` rows: the first ones, with those of ``fillers`` in place of ``gaps``.

        Raises ``ValueError`` for rows that are not there.
        """
        n_rows = len(self._parts[0]) if self._length else 0
        gaps, fillers = whole("gaps", gaps), whole("fillers", fillers)
        if not 0 <= n_kept <= n_rows or gaps.shape != fillers.shape or gaps.ndim != 1:
            raise ValueError(
                f"n_kept is {n_kept} with gaps {tuple(gaps.shape)} and fillers "
                f"{tuple(fillers.shape)}; keep 0 to {n_rows} rows, a filler for each gap"
            )
        check_within("gap", gaps, n_kept, "fill rows that are kept")
        check_within("filler", fillers, n_rows, "fill with rows of the cache")
        for part in self._parts:
            move_rows(part[..., : self._length, :], n_kept, gaps, fillers)
        self._parts = [part[:n_kept] for part in self._parts]


class KVCache(TokenCache):
    """The keys and values of the tokens that one attention layer has seen, ``[B, H_kv, T, D]``."""

    def append(
        self, key: Float[Tensor, "B H_kv S D"], value: Float[Tensor, "B H_kv S D"]
    ) -> tuple[Float[Tensor, "B H_kv T D"], Float[Tensor, "B H_kv T D"]]:
        """Store ``[B, H_kv, S, D]`` of the next S tokens; return all so far.

        Raises ``ValueError`` for more tokens than there is room, and for tensors that differ in
        more than S from those before.
        """
        if key.ndim != 4 or key.shape != value.shape or key.dtype != value.dtype:
            raise ValueError(
                f"key has shape {tuple(key.shape)} and dtype {key.dtype}, value "
                f"{tuple(value.shape)} and {value.dtype}; pass two of [B, H_kv, S, D]"
            )
        self._check_next("key", key, "pass the same rows and heads")
        keys, values = self._append(key, value)
        return keys, values


class LatentCache(TokenCache):
    """One vector of each token that a layer has seen, ``[B, T, width]``, shared by all heads.

    In `LatentAttention` it is the compressed vector and the rotary key, ``kv_lora_rank +
    qk_rope_head_dim`` numbers; in `LightningIndexer` its key.
    """

    def append(self, latent: Float[Tensor, "B S width"]) -> Float[Tensor, "B T width"]:
        """Store ``[B, S, width]`` of the next S tokens; return all so far.

        Raises ``ValueError`` for more tokens than there is room, and for tensors that differ in
        more than S from those before.
        """
        check_shapes("pass [B, S, width]", latent=latent)
        self._check_next("latent", latent, "pass the same rows and width")
        return self._append(latent)[0]


def move_rows(
    rows: Shaped[Tensor, "R *rest"],
    n_kept: int,
    gaps: Integer[Tensor, "gaps"],
    fillers: Integer[Tensor, "gaps"],
) -> Shaped[Tensor, "kept *rest"]:
    """Put the rows ``fillers`` in the place of ``gaps``, in place; return the first ``n_kept``."""
    if len(gaps):
        rows[gaps] = rows[fillers]
    return rows[:n_kept]


# --- heads with keys and values of their own, or shared ------------------------------------------


class Attention(nn.Module):
    """Causal attention in which several query heads may share one key-value head (GQA).

    ``n_kv_heads`` of ``None`` gives each of the ``n_heads`` its own. Source: Ainslie et al., arXiv
    2305.13245; rotary positions: Su et al., arXiv 2104.09864.
    """

    def __init__(
        self, d_model: int, n_heads: int, head_dim: int, n_kv_heads: int | None = None
    ) -> None:
        """Draw the weights; the output matrix starts at zero.

        Raises ``ValueError`` for sizes that do not fit together, and an odd ``head_dim``.
        """
        super().__init__()
        sizes.MultiHeadAttention(n_heads, head_dim, n_kv_heads)  # refuses what does not fit
        require.even_for_rope(head_dim=head_dim)
        self.d_model, self.head_dim = d_model, head_dim
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads or n_heads
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.query = nn.Linear(d_model, queries, bias=False)
        self.key = nn.Linear(d_model, keys, bias=False)
        self.value = nn.Linear(d_model, keys, bias=False)
        self.output = nn.Linear(queries, d_model, bias=False)
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))
        nn.init.zeros_(self.output.weight)

    @property
    def reads(self) -> nn.Module:
        """The layer that meets the input first."""
        return self.query

    def make_cache(self, room: int) -> KVCache:
        """Return an empty cache for this layer, for up to ``room`` tokens."""
        return KVCache(room)

    def forward(
        self,
        x: Float[Tensor, "B S d"],
        rotation: Float[Tensor, "2 S D"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B S d"]:
        """Return for each of ``x [B, S, d_model]`` what it found in itself and before it.

        With a cache ``x`` are the next tokens after those that it holds. Raises ``ValueError`` for
        another shape or type, and when a result is not finite.
        """
        x = check_input(x, self.d_model, self.query)
        _check_sequence(x, rotation, self.head_dim)
        query, key, value = self.project(x, rotation)
        if cache is not None:
            key, value = cache.append(key, value)
        found = _attend(query, key, value)
        mixed: Tensor = self.output(found.transpose(1, 2).flatten(2))
        check_output(mixed, x)
        return mixed

    def project(
        self, x: Float[Tensor, "B S d"], rotation: Float[Tensor, "2 S D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H_kv S D"], Float[Tensor, "B H_kv S D"]]:
        """Return the queries, keys and values of all heads, the first two turned by position."""
        query = rotate(self._heads(self.query(x), self.n_heads), rotation)
        key = rotate(self._heads(self.key(x), self.n_kv_heads), rotation)
        return query, key, self._heads(self.value(x), self.n_kv_heads)

    def _heads(self, x: Float[Tensor, "B S H_D"], n_heads: int) -> Float[Tensor, "B H S D"]:
        """Give each head its channels."""
        return x.view(*x.shape[:2], n_heads, self.head_dim).transpose(1, 2)


def attend_to_all(
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B H_kv T D"],
    value: Float[Tensor, "B H_kv T D_v"],
    scale: float | None = None,
) -> Float[Tensor, "B H S D_v"]:
    """Attention of the last S of T tokens, behind a cache.

    Each sees all tokens before the last S, itself, and those of the S that come before it. The
    queries that share a head of keys and values are the rows of one matrix, so that these are read
    once for all of them. ``scale`` is ``D ** -0.5`` unless given. Raises ``ValueError`` for shapes
    that do not belong together.
    """
    _check_heads(query, key, value)
    n_new, scale = query.shape[2], key.shape[3] ** -0.5 if scale is None else scale
    future = _future(n_new, key.shape[2], key.device) if n_new > 1 else None
    if torch.finfo(query.dtype).bits < 32:  # scores of half precision would be off by units
        seen = None if future is None else ~future
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, enable_gqa=True, scale=scale
        )
    # Many rows take a tenth to a half longer with SDPA. One row would take less time; to treat it
    # in another way would round it in another way.
    together = query.shape[1] // key.shape[1]
    shared = query.reshape(key.shape[0] * key.shape[1], together * n_new, key.shape[3])
    scores = torch.bmm(shared * scale, key.flatten(0, 1).mT)
    if future is not None:
        rows = scores.view(len(scores), together, n_new, key.shape[2])
        scores = rows.masked_fill(future, -math.inf).view_as(scores)
    found = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return found.view(*query.shape[:3], value.shape[3])


def _check_heads(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ``ValueError`` unless these are heads of the last S of T tokens."""
    fits = query.ndim == key.ndim == value.ndim == 4 and value.shape[:3] == key.shape[:3]
    if fits:
        (batch, n_heads, n_new, width), (_, n_kv, n_tokens, _) = query.shape, key.shape
        fits = key.shape[::3] == (batch, width) and n_new <= n_tokens
        fits = fits and n_kv > 0 and n_heads % n_kv == 0
    if not fits or not query.is_floating_point():
        raise ValueError(
            f"query has shape {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)}, of {query.dtype}; pass [B, H, S, D], [B, H_kv, T, D] and [B, "
            "H_kv, T, D_v] of floating point, S up to T and H a multiple of H_kv"
        )


def _attend(
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B H_kv T D"],
    value: Float[Tensor, "B H_kv T D_v"],
    scale: float | None = None,
) -> Float[Tensor, "B H S D_v"]:
    """Causal attention of the last S of T tokens, as `attend_to_all`; quick where S is T."""
    if key.shape[2] > query.shape[2]:
        return attend_to_all(query, key, value, scale)
    shared = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=shared, scale=scale
    )


def _future(n_new: int, n_tokens: int, device: torch.device) -> Bool[Tensor, "S T"]:
    """Which of T positions each of the last S tokens must not see."""
    everything = torch.ones(n_new, n_tokens, dtype=torch.bool, device=device)
    return everything.triu(n_tokens - n_new + 1)


# --- latent attention ----------------------------------------------------------------------------


class LatentAttention(nn.Module):
    """Multi-head latent attention (MLA): all heads unpack keys and values from one small vector.

    A token leaves ``kv_lora_rank`` channels, from which each head unpacks ``qk_nope_head_dim``
    channels of key and ``v_head_dim`` of value, and a rotary key of ``qk_rope_head_dim`` channels,
    which the heads share. The rotary part stands apart since a rotation between the two matrices,
    one that changes with the distance, would keep them from being multiplied in advance. Queries
    pass through ``q_lora_rank`` channels, or directly when it is ``None``. Softmax scale is
    ``(qk_nope_head_dim + qk_rope_head_dim) ** -0.5``, absorbed or not.

    Source: DeepSeek-V2, arXiv 2405.04434, §2.1, eqs. 9-19; the names are those of its configuration
    files. Raises ``ValueError`` for sizes below 1 and an odd ``qk_rope_head_dim``.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        kv_lora_rank: int,
        q_lora_rank: int | None,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        rope_base: float = 10_000.0,
    ) -> None:
        """Draw the weights; the output matrix starts at zero."""
        super().__init__()
        self.sizes = sizes.LatentAttention(
            n_heads, kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim
        )
        require.counts(d_model=d_model)
        require.positive(rope_base=rope_base)
        require.even_for_rope(qk_rope_head_dim=qk_rope_head_dim)
        self.d_model, self.n_heads = d_model, n_heads
        self.key_dim = qk_nope_head_dim + qk_rope_head_dim
        self.scale = self.key_dim**-0.5
        self.speeds = _speeds(qk_rope_head_dim, rope_base, torch.device("cpu"))
        self.stretch = 1.0  # of cosines and sines, for YaRN
        if q_lora_rank is not None:
            self.compress_query = nn.Linear(d_model, q_lora_rank, bias=False)
            self.query_norm = nn.RMSNorm(q_lora_rank, eps=1e-6)
        self.query = nn.Linear(q_lora_rank or d_model, n_heads * self.key_dim, bias=False)
        self.compress = nn.Linear(d_model, kv_lora_rank + qk_rope_head_dim, bias=False)
        self.latent_norm = nn.RMSNorm(kv_lora_rank, eps=1e-6)
        unpacked = n_heads * (qk_nope_head_dim + v_head_dim)
        self.unpack = nn.Linear(kv_lora_rank, unpacked, bias=False)
        self.output = nn.Linear(n_heads * v_head_dim, d_model, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        nn.init.zeros_(self.output.weight)

    @classmethod
    def from_deepseek(cls, state_dict: Mapping[str, Tensor], config: Any) -> Self:  # noqa: ANN401
        """Return the attention with weights as transformers' ``DeepseekV3Attention`` has them.

        ``config`` is a ``DeepseekV3Config`` or the dictionary of a config.json; YaRN (arXiv
        2309.00071) is taken over. That is a setting and no weight: a ``state_dict`` does not carry
        it, so load one of these by this call. Raises ``ValueError`` for biases, for another kind of
        stretched positions, and for weights that are missing, of another shape or too many.
        """
        told = _DeepSeekConfig(config)
        attention = cls(told["hidden_size"], told["num_attention_heads"], **told.sizes())
        attention._stretch_positions(told.rope(), told)
        try:
            weights = _from_deepseek(attention.sizes, state_dict, told.get("rope_interleave", True))
            dtype = weights["compress.weight"].dtype
            attention.to(dtype).load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{len(state_dict)} weights do not fit the configuration ({error}); pass those of "
                "one DeepseekV3Attention"
            ) from error
        return attention

    def _stretch_positions(self, rope: Mapping[str, Any], told: "_DeepSeekConfig") -> None:
        """Take over YaRN's speeds of turning and its larger scale, if ``rope`` asks for it."""
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "default":
            return
        if kind != "yarn":
            raise ValueError(f"rope_type is {kind!r}; give default or yarn")
        original = rope.get("original_max_position_embeddings")
        if original is None:
            raise ValueError(
                "rope_scaling has no original_max_position_embeddings; pass that of a DeepSeek "
                "model"
            )
        factor = rope.get("factor") or told["max_position_embeddings"] / original
        fast, slow = rope.get("beta_fast") or 32, rope.get("beta_slow") or 1
        self.speeds = yarn_speeds(self.speeds, told.rope_base(), factor, original, fast, slow)
        every, some = rope.get("mscale_all_dim") or 0, rope.get("mscale") or 0
        both = _mscale(factor, some) / _mscale(factor, every) if every and some else None
        self.stretch = rope.get("attention_factor") or both or _mscale(factor, 1)
        if every:
            self.scale *= _mscale(factor, every) ** 2

    @property
    def reads(self) -> nn.Module:
        """The layer that meets the input first."""
        return self.compress

    def make_cache(self, room: int) -> LatentCache:
        """Return an empty cache for this layer, for up to ``room`` tokens."""
        return LatentCache(room)

    def rotations(
        self, length: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "2 S rope"]:
        """Return the rotations of the first ``length`` positions, ``[2, length, rope]``.

        Raises ``ValueError`` for a ``length`` below 0.
        """
        return _turns(self.speeds, length, dtype) * self.stretch

    def forward(
        self,
        x: Float[Tensor, "B S d"],
        cache: LatentCache | None = None,
        *,
        absorbed: bool = False,
        rotation: Float[Tensor, "2 S rope"] | None = None,
    ) -> Float[Tensor, "B S d"]:
        """Return for each of ``x [B, S, d_model]`` what it found in itself and before it.

        With a cache ``x`` are the next tokens after those that it holds. ``absorbed`` leaves the
        latents packed: each head's query is carried into their space instead, which gives the same
        (V2, §2.1.2). It pays for one token against many, and not for many at once. ``rotation [2,
        S, rope]`` of these positions is made when it is not given. Raises ``ValueError`` for
        another shape or type, and when a result is not finite.
        """
        x = check_input(x, self.d_model, self.compress)
        _check_sequence(x, rotation, self.sizes.qk_rope_head_dim)
        if rotation is None:
            start = 0 if cache is None else cache.length
            dtype = torch.promote_types(x.dtype, torch.float32)
            rotation = self.rotations(start + x.shape[1], dtype)[:, start:].to(x.device)
        query = self._queries(x, rotation)
        latents = self._latents(x, rotation)
        if cache is not None:
            latents = cache.append(latents)
        find = self._find_absorbed if absorbed else self._find_unpacked
        mixed: Tensor = self.output(find(query, latents).transpose(1, 2).flatten(2))
        check_output(mixed, x)
        return mixed

    def _queries(
        self, x: Float[Tensor, "B S d"], rotation: Float[Tensor, "2 S rope"]
    ) -> Float[Tensor, "B H S nope_rope"]:
        """The queries of all heads, the last part rotated."""
        if self.sizes.q_lora_rank is not None:
            x = self.query_norm(self.compress_query(x))
        heads = self.query(x).unflatten(-1, (self.n_heads, self.key_dim)).transpose(1, 2)
        plain, turning = heads.split([self.sizes.qk_nope_head_dim, rotation.shape[-1]], dim=-1)
        return torch.cat([plain, rotate(turning, rotation)], dim=-1)

    def _latents(
        self, x: Float[Tensor, "B S d"], rotation: Float[Tensor, "2 S rope"]
    ) -> Float[Tensor, "B S rank_rope"]:
        """What each token leaves: its latent normalized, and its key rotated."""
        latent, key = self.compress(x).split([self.sizes.kv_lora_rank, rotation.shape[-1]], dim=-1)
        return torch.cat([self.latent_norm(latent), rotate(key, rotation)], dim=-1)

    def _find_unpacked(
        self, query: Float[Tensor, "B H S nope_rope"], latents: Float[Tensor, "B T rank_rope"]
    ) -> Float[Tensor, "B H S v"]:
        """Unpack keys and values of all tokens, then attend as ever."""
        s = self.sizes
        latent, turning = torch.split(latents, [s.kv_lora_rank, s.qk_rope_head_dim], dim=-1)
        unpacked = self.unpack(latent).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        plain, value = unpacked.split([s.qk_nope_head_dim, s.v_head_dim], dim=-1)
        shared = turning[:, None].expand(-1, self.n_heads, -1, -1)
        key = torch.cat([plain, shared], dim=-1)
        return _attend(query, key, value, self.scale)

    def _find_absorbed(
        self, query: Float[Tensor, "B H S nope_rope"], latents: Float[Tensor, "B T rank_rope"]
    ) -> Float[Tensor, "B H S v"]:
        """Carry the queries to the latents, and what they find there to values.

        q · (W c) is (Wᵀ q) · c, and the mean of W c is W times the mean of c. To the queries the
        latents are the one key that all heads share, and without its rotary part also the value.
        """
        s = self.sizes
        matrix = _matrix_of(self.unpack, s.kv_lora_rank, query)
        matrices = matrix.view(self.n_heads, -1, s.kv_lora_rank)
        to_key, to_value = torch.split(matrices, [s.qk_nope_head_dim, s.v_head_dim], dim=1)
        plain, turning = torch.split(query, [s.qk_nope_head_dim, s.qk_rope_head_dim], dim=-1)
        carried = torch.cat([plain @ to_key, turning], dim=-1)
        key = latents[:, None]
        found = attend_to_all(carried, key, key[..., : s.kv_lora_rank], self.scale)
        values: Tensor = found @ to_value.mT
        return values


def _matrix_of(linear: nn.Module, n_in: int, like: Tensor) -> Float[Tensor, "N K"]:
    """The matrix of a linear layer: its weight, or of another kind what it makes of unit vectors.

    A layer with LoRA, or one in few bits, has more to it than a ``weight``.
    """
    if type(linear) is nn.Linear:
        return linear.weight
    units = torch.eye(n_in, dtype=like.dtype, device=like.device)
    matrix: Tensor = linear(units).mT.contiguous()
    return matrix


def yarn_speeds(
    speeds: Float[Tensor, "pairs"],
    base: float,
    factor: float,
    original: int,
    fast: float = 32,
    slow: float = 1,
) -> Float[Tensor, "pairs"]:
    """Slow down the pairs of channels that turn less than ``slow`` times in ``original`` positions.

    Those turn ``factor`` times slower, so that a text ``factor`` times as long holds no angle that
    was not seen; those that turn more than ``fast`` times stay, and between them is a ramp. Source:
    YaRN, arXiv 2309.00071, §3.2. Raises ``ValueError`` for numbers that are not above 0, a ``base``
    of at most 1, and a ``slow`` that is not below ``fast``.
    """
    require.positive(base=base, factor=factor, original=original, fast=fast, slow=slow)
    if base <= 1 or slow >= fast:
        raise ValueError(
            f"base is {base}, slow {slow} and fast {fast}; give a base above 1 and slow below fast"
        )
    n_channels = 2 * len(speeds)

    def channel(turns: float) -> float:
        length = original / (turns * 2 * math.pi)
        return n_channels * math.log(length) / (2 * math.log(base))

    low = max(math.floor(channel(fast)), 0)
    high = min(math.ceil(channel(slow)), n_channels - 1)
    ramp = (torch.arange(len(speeds), dtype=speeds.dtype) - low) / max(high - low, 1e-3)
    slowed = ramp.clamp(0, 1).to(speeds.device)
    return speeds * (1 - slowed) + speeds / factor * slowed


def _mscale(factor: float, strength: float) -> float:
    """By how much YaRN sharpens attention, as a factor (arXiv 2309.00071, eq. 15)."""
    return 1.0 if factor <= 1 else 0.1 * strength * math.log(factor) + 1.0


class _DeepSeekConfig:
    """A configuration of DeepSeek, from a file or from transformers, by key."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401
        self.told: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
        if self.get("attention_bias"):
            raise ValueError("attention_bias is True; latent attention has no biases, give False")

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        return self.told.get(name, default)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        if name not in self.told:
            raise ValueError(f"{name} is not in the configuration; pass that of a DeepSeek model")
        return self.told[name]

    def rope(self) -> Mapping[str, Any]:
        """How positions turn: one entry in transformers 5, another in config.json."""
        return self.get("rope_parameters") or self.get("rope_scaling") or {}

    def rope_base(self) -> float:
        return float(self.rope().get("rope_theta") or self.get("rope_theta") or 10_000.0)

    def sizes(self) -> dict[str, Any]:
        names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        taken = {name: self[name] for name in names}
        return {**taken, "q_lora_rank": self.get("q_lora_rank"), "rope_base": self.rope_base()}


def _from_deepseek(
    s: sizes.LatentAttention, theirs: Mapping[str, Tensor], interleaved: bool
) -> dict[str, Tensor]:
    """Our weights from theirs, by name."""
    names = {
        "compress.weight": "kv_a_proj_with_mqa.weight",
        "latent_norm.weight": "kv_a_layernorm.weight",
        "unpack.weight": "kv_b_proj.weight",
        "output.weight": "o_proj.weight",
        "query.weight": "q_proj.weight" if s.q_lora_rank is None else "q_b_proj.weight",
    }
    if s.q_lora_rank is not None:
        names["compress_query.weight"] = "q_a_proj.weight"
        names["query_norm.weight"] = "q_a_layernorm.weight"
    if extra := theirs.keys() - names.values():
        raise KeyError(f"no place for {', '.join(sorted(extra))}")
    ours = {our: theirs[name].detach().clone() for our, name in names.items()}
    if interleaved:
        ours["compress.weight"] = pairs_apart(ours["compress.weight"], 1, s.qk_rope_head_dim)
        ours["query.weight"] = pairs_apart(ours["query.weight"], s.n_heads, s.qk_rope_head_dim)
    return ours


def pairs_apart(weight: Float[Tensor, "H_D d"], n_heads: int, rope: int) -> Float[Tensor, "H_D d"]:
    """Reorder the last ``rope`` rows of each head: the even ones, then the odd ones.

    DeepSeek and GGUF put the two channels of a rotary pair side by side, `rotate` half a head
    apart, as transformers does.
    """
    heads = weight.view(n_heads, -1, weight.shape[1])
    plain, turning = heads[:, :-rope], heads[:, -rope:]
    return torch.cat([plain, turning[:, ::2], turning[:, 1::2]], dim=1).reshape(weight.shape)


# --- sparse attention ----------------------------------------------------------------------------


class LightningIndexer(nn.Module):
    """Scores every earlier token for a query, cheaply, so that attention needs to read only a few.

    ``I(t, s) = sum over heads j of w(t, j) * relu(q(t, j) · k(s))``, with few and narrow heads and
    one key for all of them. Its rotary channels are those of the whole head, half a head apart.

    Source: DeepSeek-V3.2, arXiv 2512.02556, §2.1, eq. 1.
    """

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        """Draw the weights; ``ValueError`` for a size below 1 or an odd ``head_dim``."""
        super().__init__()
        require.counts(d_model=d_model, n_heads=n_heads, head_dim=head_dim)
        require.even_for_rope(head_dim=head_dim)
        self.d_model, self.n_heads, self.head_dim = d_model, n_heads, head_dim
        self.query = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.key = nn.Linear(d_model, head_dim, bias=False)
        self.key_norm = nn.LayerNorm(head_dim)
        self.weight = nn.Linear(d_model, n_heads, bias=False)
        for linear in (self.query, self.key, self.weight):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))

    def forward(
        self,
        x: Float[Tensor, "B S d"],
        rotation: Float[Tensor, "2 S D"],
        cache: LatentCache | None = None,
    ) -> Float[Tensor, "B S T"]:
        """Return the scores ``[B, S, T]`` of ``x [B, S, d_model]``, the last S of T tokens.

        What comes later scores ``-inf``. ``rotation`` is ``[2, S, head_dim]``. Raises
        ``ValueError`` for another shape or type.
        """
        x = check_input(x, self.d_model, self.query)
        _check_sequence(x, rotation, self.head_dim)
        query = self.query(x).unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
        query, key = rotate(query, rotation), rotate(self.key_norm(self.key(x)), rotation)
        if cache is not None:
            key = cache.append(key)
        products = (query @ key[:, None].mT).relu()
        weight = self.weight(x) * (self.n_heads * self.head_dim) ** -0.5
        scores = torch.einsum("bhst,bsh->bst", products, weight)
        return scores.masked_fill(_future(x.shape[1], key.shape[1], x.device), -math.inf)


def indexer_loss(
    scores: Float[Tensor, "B S T"], attention: Float[Tensor, "B H S T"]
) -> Float[Tensor, ""]:
    """Return how far the indexer's choice is from the ``attention [B, H, S, T]`` that it imitates.

    The mean of the heads is a distribution over positions; so is the softmax of ``scores [B, S,
    T]``. The loss is the KL divergence from the first to the second in nats, the mean over
    queries. It has no gradient in the attention, and the choice of the k best, which has none at
    all, plays no part. Source: DeepSeek-V3.2, arXiv 2512.02556, §2.1.1, eq. 3.

    Raises ``ValueError`` for shapes that do not belong together, for no query or no head, and for
    attention that is no distribution.
    """
    scores, attention = real("scores", scores), real("attention", attention)
    remedy = "pass [B, S, T] and [B, H, S, T]"
    check_shapes(remedy, empty=False, scores=scores, attention=attention)
    target = at_least_float32(attention.detach()).mean(dim=1)
    sums = target.sum(dim=-1, keepdim=True)
    if not bool((attention >= 0).all() and (sums > 0).all() and sums.isfinite().all()):
        raise ValueError("attention is no distribution; give weights of at least 0, not all 0")
    target = target / sums
    guess = at_least_float32(scores).log_softmax(dim=-1)
    # Where the target is 0 a term is 0, also at a score of -inf.
    terms = torch.where(target > 0, target * (target.log() - guess), 0.0)
    return terms.sum(dim=-1).mean()


def sparse_attention(
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B H_kv T D"],
    value: Float[Tensor, "B H_kv T D_v"],
    scores: Float[Tensor, "B S T"],
    k: int,
    *,
    scale: float | None = None,
) -> Float[Tensor, "B H S D_v"]:
    """Attention of the last S of T tokens, each to its ``k`` best-scored positions alone.

    ``query [B, H, S, D]``, ``key [B, H_kv, T, D]``, ``value [B, H_kv, T, D_v]``; all heads of a
    token share the choice by ``scores [B, S, T]``. A later token is never chosen, whatever its
    score; with ``k`` of at least T this is causal attention. Returns ``[B, H, S, D_v]``, computed
    in at least float32.

    Source: DeepSeek-V3.2, arXiv 2512.02556, §2.1, eq. 2. Raises ``ValueError`` for shapes that do
    not belong together, a ``k`` below 1, and a score that is NaN.
    """
    require.counts(k=k)
    _check_heads(query, key, value)
    batch, _, n_new, _ = query.shape
    n_tokens, n_kv = key.shape[2], key.shape[1]
    if scores.shape != (batch, n_new, n_tokens):
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and query {tuple(query.shape)}, of {n_tokens} "
            f"tokens; pass [B, S, T] = {(batch, n_new, n_tokens)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError(f"{first('scores', scores, scores.isnan())}; give numbers, or -inf")
    dtype = value.dtype
    query, key, value = (at_least_float32(each) for each in (query, key, value))
    # Before the choice, not after it: a later token would take the place of one that may be seen.
    future = _future(n_new, n_tokens, key.device)
    seen = at_least_float32(scores)
    seen = seen.clamp(min=torch.finfo(seen.dtype).min).masked_fill(future, -math.inf)
    best = seen.topk(min(k, n_tokens), dim=-1).indices
    hidden = future.expand(batch, -1, -1).gather(2, best)
    rows = torch.arange(batch, device=key.device)[:, None, None]
    chosen_keys = key.transpose(1, 2)[rows, best]  # [B, S, k, H_kv, D]
    chosen_values = value.transpose(1, 2)[rows, best]
    groups = query.reshape(batch, n_kv, query.shape[1] // n_kv, n_new, query.shape[3])
    scale = key.shape[3] ** -0.5 if scale is None else scale
    similar = torch.einsum("bhgsd,bskhd->bhgsk", groups * scale, chosen_keys)
    weights = similar.masked_fill(hidden[:, None, None], -math.inf).softmax(dim=-1)
    found = torch.einsum("bhgsk,bskhd->bhgsd", weights, chosen_values).flatten(1, 2)
    return found.to(dtype)
