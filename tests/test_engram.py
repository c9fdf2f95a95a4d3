"""A memory of phrases: which rows are read, what is added, and what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edges import public_names
from slingshot import engram
from slingshot.engram import Engram, phrase_slots
from slingshot.lm import DecoderLM, LMConfig
from slingshot.train import hidden_matrices

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
PAIRS = torch.tensor([[3, 5], [7, 11]])  # two hashes of two tokens


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape: int, n: int = 512, seed: int = 0) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def with_values(memory: Engram) -> Engram:
    """The same memory with values that are not zero, as after some training."""
    with torch.no_grad():
        memory.value.weight.copy_(random(*memory.value.weight.shape, seed=9))
    return memory


# --- which row -----------------------------------------------------------------------------------


def test_rows_by_hand() -> None:
    # Ids plus 1, the last token's number first: of [1, 2] it is 3*3 ^ 5*2 = 9 ^ 10 = 3.
    found = phrase_slots(torch.tensor([[1, 2]]), 2, PAIRS, 100)
    assert found.tolist() == [[[(3 * 2) ^ 0, (7 * 2) ^ 0], [9 ^ 10, 21 ^ 22]]]
    assert phrase_slots(torch.tensor([[1, 2]]), 2, PAIRS, 5)[0, 0].tolist() == [6 % 5, 14 % 5]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_row_depends_on_the_phrase_and_on_nothing_else(order: int) -> None:
    multipliers = 2 * ids(2, 3, n=1 << 29) + 1
    tokens = ids(1, 40)
    before = phrase_slots(tokens, order, multipliers, 2179)
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 512
    after = phrase_slots(changed, order, multipliers, 2179)
    moved = (before != after).any(-1)[0].nonzero().flatten().tolist()
    assert moved == list(range(20, 20 + order))
    elsewhere = torch.cat([ids(1, 7, seed=1), tokens], dim=1)
    shifted = phrase_slots(elsewhere, order, multipliers, 2179)[:, 7:]
    assert torch.equal(shifted[:, order - 1 :], before[:, order - 1 :])


def test_the_order_of_the_tokens_counts() -> None:
    multipliers = 2 * ids(1, 2, n=1 << 29) + 1
    ab, ba = (
        phrase_slots(torch.tensor([pair]), 2, multipliers, 10_007) for pair in ((4, 9), (9, 4))
    )
    assert ab[0, 1] != ba[0, 1]


def test_each_token_has_a_row_of_its_own_where_there_is_room() -> None:
    memory = Engram(16, 512, 4, orders=(1,), n_heads=1)
    assert len(memory.slots(torch.arange(512).unsqueeze(0)).unique()) == 512  # type: ignore[no-untyped-call]


def test_phrases_that_meet_in_one_table_seldom_meet_in_another() -> None:
    memory = Engram(16, 211, 4, orders=(2,), n_heads=2)
    pairs = torch.cartesian_prod(torch.arange(40), torch.arange(40))
    rows = memory.slots(pairs)[:, 1]  # both tables, 1,600 phrases for 211 rows
    met = [len(pairs) - len(rows[:, table].unique()) for table in range(2)]  # type: ignore[no-untyped-call]
    both = len(pairs) - len(rows.unique(dim=0))  # type: ignore[no-untyped-call]
    assert min(met) > 1300
    assert both < 100


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_ids_of_any_integer_type_read_the_same_rows(dtype: torch.dtype) -> None:
    tokens = ids(2, 9, n=100)
    memory = Engram(8, 97, 2)
    assert torch.equal(memory.slots(tokens.to(dtype)), memory.slots(tokens))


def test_tables_are_apart() -> None:
    memory = Engram(8, 50, 2)
    rows = memory.slots(ids(4, 30))
    assert rows.shape == (4, 30, 4)
    assert torch.equal(rows // 50, torch.arange(4).expand(4, 30, 4))


# --- what is added -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_added_at_first(dtype: torch.dtype) -> None:
    added = Engram(16, 31, 4).to(dtype)(random(2, 5, 16).to(dtype), ids(2, 5))
    assert added.dtype == dtype
    assert not added.any()


def test_what_is_added_as_the_formula_says() -> None:
    memory, x, tokens = (
        with_values(Engram(16, 31, 4)).double(),
        random(1, 6, 16).double(),
        ids(1, 6),
    )
    added = memory(x, tokens)
    for place in range(6):
        read = torch.cat([memory.table.weight[row] for row in memory.slots(tokens)[0, place]])
        key, value = memory.key.weight @ read, memory.value.weight @ read
        norms = [v / v.square().mean().sqrt() for v in (x[0, place], key)]
        gate = 1 / (1 + math.exp(-(norms[0] @ norms[1]).item() / 4))
        torch.testing.assert_close(added[0, place], gate * value, atol=1e-6, rtol=1e-6)


def test_the_gate_opens_for_a_state_like_the_key_and_closes_for_its_opposite() -> None:
    memory, key = Engram(64, 31, 4), random(1, 1, 64)
    gates = [float(memory.gate(x, key)) for x in (key, -key, torch.zeros(1, 1, 64))]
    assert gates[0] == pytest.approx(1 / (1 + math.exp(-8)), abs=1e-6)
    assert gates[1] == pytest.approx(1 / (1 + math.exp(8)), abs=1e-6)
    assert gates[2] == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e3, 3e4])
def test_halves_give_what_float32_gives(dtype: torch.dtype, size: float) -> None:
    memory, tokens = with_values(Engram(16, 31, 4)).to(dtype), ids(2, 7)
    x = (size * random(2, 7, 16).clamp(-2, 2)).to(dtype)
    wide = Engram(16, 31, 4)
    wide.load_state_dict(memory.state_dict())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        memory(x, tokens).float(), wide(x.float(), tokens), atol=32 * eps, rtol=16 * eps
    )


def test_no_place_sees_a_later_token() -> None:
    memory, x, tokens = with_values(Engram(16, 31, 4)), random(1, 9, 16), ids(1, 9)
    whole = memory(x, tokens)
    for end in range(1, 10):
        torch.testing.assert_close(memory(x[:, :end], tokens[:, :end]), whole[:, :end])


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, int]) -> None:
    memory = with_values(Engram(16, 31, 4))
    x = random(*shape, 16).requires_grad_()
    added = memory(x, ids(*shape))
    assert added.shape == (*shape, 16)
    added.sum().backward()
    assert x.grad is not None


def test_what_learns_and_with_what() -> None:
    memory = with_values(Engram(16, 31, 4))
    tokens = ids(3, 8)
    memory(random(3, 8, 16), tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in memory.parameters())
    moved = memory.table.weight.grad.any(dim=1).nonzero().flatten()  # type: ignore[union-attr]
    assert torch.equal(moved, memory.slots(tokens).unique())  # type: ignore[no-untyped-call]
    names = {id(p): name for name, p in memory.named_parameters()}
    assert {names[id(p)] for p in hidden_matrices(memory)} == {"key.weight", "value.weight"}


def test_the_gradient_is_that_of_differences() -> None:
    memory, tokens = with_values(Engram(6, 11, 2)).double(), ids(1, 3)
    x = random(1, 3, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: memory(x, tokens), (x,))


def test_it_stands_in_a_model_and_is_kept_with_it() -> None:
    torch.manual_seed(0)
    model = DecoderLM(LMConfig(vocab_size=40, d_model=16, n_layers=1, n_heads=2, d_ffn=16))
    model.engram = with_values(Engram(16, 31, 4))
    again = Engram(16, 31, 4)
    state = {k.removeprefix("engram."): v for k, v in model.state_dict().items() if "engram" in k}
    again.load_state_dict(state)
    x, tokens = random(1, 5, 16), ids(1, 5, n=40)
    assert torch.equal(again(x, tokens), model.engram(x, tokens))


# --- what is refused -----------------------------------------------------------------------------

X, TOKENS = torch.ones(1, 3, 8), torch.zeros(1, 3, dtype=torch.int64)
REFUSED: dict[str, Callable[[], object]] = {
    "token -1 is negative; pass ids": lambda: Engram(8, 31, 4)(X, TOKENS - 1),
    "tokens has dtype torch.float32; pass the ids": lambda: Engram(8, 31, 4)(X, TOKENS.float()),
    "tokens has dtype torch.bool; pass the ids": lambda: Engram(8, 31, 4)(X, TOKENS.bool()),
    "tokens is list; pass a tensor": lambda: Engram(8, 31, 4).slots([[1]]),  # type: ignore[arg-type]
    r"pass \[B, S, 8\] and \[B, S\]": lambda: Engram(8, 31, 4)(X, TOKENS[0]),
    r"x has shape \(1, 3, 8\); pass \[..., 16\]": lambda: Engram(16, 31, 4)(X, TOKENS),
    "x has dtype torch.float64 and the layer torch.float32": lambda: Engram(8, 31, 4)(
        X.double(), TOKENS
    ),
    "n_slots is 0; give": lambda: Engram(8, 0, 4),
    "d_slot is -1; give": lambda: Engram(8, 31, -1),
    "n_heads is 0; give": lambda: Engram(8, 31, 4, n_heads=0),
    r"orders is \(\); give": lambda: Engram(8, 31, 4, orders=()),
    "orders is 2; give the lengths of phrases": lambda: Engram(8, 31, 4, orders=2),  # type: ignore[arg-type]
    r"order is 2\.5; give": lambda: Engram(8, 31, 4, orders=(2.5,)),  # type: ignore[arg-type]
    "multipliers has dtype torch.float32; pass odd": lambda: phrase_slots(
        TOKENS, 2, PAIRS.float(), 5
    ),
    r"x has shape \(1, 3, 8\) and key \(1, 3, 4\); pass": lambda: Engram(8, 31, 4).gate(
        X, X[..., :4]
    ),
    "order is 0; give": lambda: Engram(8, 31, 4, orders=(2, 0)),
    "n_tokens is 3 with multipliers for 2": lambda: phrase_slots(TOKENS, 3, PAIRS, 5),
    "n_tokens is 0; give": lambda: phrase_slots(TOKENS, 0, PAIRS, 5),
    r"pass \[B, S\] and \[H, N\]": lambda: phrase_slots(TOKENS, 2, PAIRS[0], 5),
    "adds up to more than|squares": lambda: Engram(8, 31, 4)(1e30 * X, TOKENS),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_every_public_name_is_looked_at() -> None:
    assert public_names(engram) == {"Engram", "phrase_slots"}
