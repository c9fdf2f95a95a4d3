"""The training loop: its schedule, its order of reading, balance, and how it stops."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any, NamedTuple

import nbformat
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from slingshot import sizes
from slingshot.completions import (
    CompletionBatch,
    Example,
    completion_batches,
    completion_logits,
    completion_mask,
)
from slingshot.lm import DecoderLM, LMConfig
from slingshot.moe import (
    expert_load,
    load_balancing_loss,
    sequence_balance_loss,
    update_expert_bias,
)
from slingshot.train import (
    Balancing,
    History,
    TrainConfig,
    balance_loss,
    fit,
    hidden_matrices,
    make_optimizers,
    shuffled_windows,
    token_losses,
    train_language_model,
    train_on_completions,
)

DENSE = LMConfig(vocab_size=16, d_model=16, n_layers=2, n_heads=2, d_ffn=16)
EXPERTS = sizes.ExpertConfig(n_routed=4, n_shared=1, top_k=2, d_expert=8)
MIXTURE = replace(DENSE, experts=EXPERTS)
SHORT = TrainConfig(3, batch_size=4, sequence_length=8, warmup=0)
PROJECTIONS = ("query", "key", "value", "output")


def make_tokens(length: int = 400) -> Tensor:
    return torch.randint(16, (length,), generator=torch.Generator().manual_seed(0))


def make_model(config: LMConfig = MIXTURE) -> DecoderLM:
    """A model whose layers all have a say, so that the choice of an expert matters."""
    torch.manual_seed(0)
    model = DecoderLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


def train(
    model: DecoderLM,
    config: TrainConfig = SHORT,
    balancing: Balancing | None = None,
    **options: Any,  # noqa: ANN401
) -> History:
    return train_language_model(
        model, make_tokens(), config, balancing=balancing, progress=False, **options
    )


class Slope(nn.Module):
    """A matrix and a vector whose loss is what a test makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, 2))
        self.vector = nn.Parameter(torch.ones(2))


def forever() -> Iterator[Tensor]:
    while True:
        yield torch.zeros(1)


# --- the schedule and the optimizer ------------------------------------------------------------


def test_the_rate_climbs_stays_and_falls() -> None:
    config = TrainConfig(10, warmup=3, decay=0.4, final=0.1)
    rates = [config.rate(step) for step in range(10)]
    # Four steps fall: the line goes from 1 at step 6 to 0.1 at step 10, which is never made.
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.775, 0.55, 0.325])


def test_without_warmup_and_decay_the_rate_stays() -> None:
    assert [TrainConfig(5, warmup=0, decay=0.0).rate(step) for step in range(5)] == [1] * 5


def test_each_step_moves_by_its_own_rate() -> None:
    # AdamW divides a gradient that is always the same by itself: what is left is the rate.
    model = Slope()
    config = TrainConfig(10, learning_rate=0.1, warmup=3, decay=0.4, final=0.1, clip=100.0)
    places: list[float] = []
    fit(
        model,
        lambda batch: model.vector.sum(),
        forever(),
        config,
        after_step=lambda: places.append(model.vector[0].item()),
        progress=False,
    )
    moved = [before - after for before, after in zip([1.0, *places], places, strict=False)]
    assert moved == pytest.approx([0.1 * config.rate(step) for step in range(10)], rel=1e-4)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = Slope()
    config = TrainConfig(5, learning_rate=0.1, weight_decay=0.5)
    fit(
        model,
        lambda batch: 0.0 * (model.matrix.sum() + model.vector.sum()),
        forever(),
        config,
        progress=False,
    )
    kept = math.prod(1 - 0.1 * config.rate(step) * 0.5 for step in range(5))
    torch.testing.assert_close(model.matrix.data, torch.full((2, 2), kept))
    assert model.vector.tolist() == [1, 1]


@pytest.mark.parametrize(("size", "norm"), [(100.0, 0.5), (0.01, 0.01)])
def test_only_a_large_gradient_is_cut(size: float, norm: float) -> None:
    model, norms = Slope(), []

    def keep_norm() -> None:
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        norms.append(torch.cat(gradients).norm().item())

    def loss(batch: Tensor) -> Tensor:
        return size * (model.matrix.sum() + model.vector.sum()) / math.sqrt(6)

    fit(model, loss, forever(), replace(SHORT, clip=0.5), after_step=keep_norm, progress=False)
    assert norms == pytest.approx([norm] * 3, rel=1e-4)


def test_a_loss_scale_that_is_a_power_of_two_changes_no_bit_in_float32() -> None:
    plain, scaled = make_model(DENSE), make_model(DENSE)
    histories = [train(plain), train(scaled, replace(SHORT, loss_scale=2.0**16))]
    assert histories[0].losses == histories[1].losses  # of the loss itself, not its multiple
    for name, value in plain.state_dict().items():
        assert torch.equal(value, scaled.state_dict()[name])


def test_a_loss_scale_saves_a_gradient_that_a_format_would_lose() -> None:
    def moved(loss_scale: float | None) -> bool:
        model = Slope()

        def loss(batch: Tensor) -> Tensor:
            # On its way back the gradient is 1e-6, and multiples of 2^-9 are all there is.
            sum_ = model.matrix.sum() + model.vector.sum()
            sum_.register_hook(lambda grad: (grad * 2**9).round() / 2**9)  # type: ignore[no-untyped-call]
            return 1e-6 * sum_

        config = replace(SHORT, weight_decay=0.0, loss_scale=loss_scale)
        fit(model, loss, forever(), config, progress=False)
        return not torch.equal(model.matrix.data, torch.ones(2, 2))

    assert not moved(None)
    assert moved(2.0**16)


def test_what_is_frozen_stays() -> None:
    model = make_model()
    for router in model.routers:
        router.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    still = {name for name in before if name.endswith(("router.weight", "expert_bias"))}
    assert moved == set(before) - still


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; give a whole number, at least 1"),
        ({"batch_size": -1}, "batch_size is -1; give a whole number, at least 1"),
        ({"sequence_length": 0}, "sequence_length is 0; give a whole number, at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a finite number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan; give a finite number above 0"),
        ({"clip": math.inf}, "clip is inf; give a finite number above 0"),
        ({"decay": 1.5}, "decay is 1.5; give a share between 0 and 1"),
        ({"final": -0.1}, "final is -0.1; give a share between 0 and 1"),
        ({"warmup": -1}, "warmup is -1; give a whole number, at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; give 0 or a small share"),
        ({"loss_scale": 0.0}, r"loss_scale is 0.0; give a power of two such as 2\*\*16, or None"),
        ({"loss_scale": math.inf}, "loss_scale is inf; give a power of two"),
        ({"batch_tokens": 0}, "batch_tokens is 0; give a whole number, at least 1"),
        ({"muon_rate": 0.0}, "muon_rate is 0.0; give a finite number above 0"),
        ({"betas": (0.9,)}, r"betas are \(0.9,\); give two shares, each below 1"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\); give two shares, each below 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **changes)


def test_a_budget_is_counted_in_predicted_tokens() -> None:
    assert (SHORT.tokens_per_step, SHORT.tokens) == (32, 96)
    by_tokens = replace(SHORT, batch_tokens=50)
    assert (by_tokens.tokens_per_step, by_tokens.tokens) == (50, 150)


def test_a_batch_may_be_anything() -> None:
    class Sized(NamedTuple):
        by: float

    model, seen = Slope(), []

    def loss(batch: Sized) -> Tensor:
        seen.append(batch.by)
        return batch.by * model.vector.sum()

    fit(model, loss, [Sized(1.0), Sized(2.0), Sized(3.0)], SHORT, progress=False)
    assert seen == [1.0, 2.0, 3.0]


def test_muon_moves_the_hidden_matrices_and_adamw_the_rest() -> None:
    model = make_model()
    model.routers[0].weight.requires_grad_(False)
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = {names[id(p)] for p in hidden_matrices(model)}
    attention = {f"layers.{n}.attention.{m}.weight" for n in (0, 1) for m in PROJECTIONS}
    shared = {name for name in names.values() if ".shared." in name}
    assert len(shared) == 4  # gate and up in one, and down, of two layers
    assert hidden == attention | shared
    adamw, muon = make_optimizers(model, replace(SHORT, muon_rate=0.02, weight_decay=0.3))
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, torch.optim.Muon)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.3, 0.0]
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["weight_decay"]) == (0.02, 0.3)
    moved = [p for each in (adamw, muon) for group in each.param_groups for p in group["params"]]
    assert len(moved) == len(set(map(id, moved)))
    assert set(map(id, moved)) == {id(p) for p in model.parameters() if p.requires_grad}
    (alone,) = make_optimizers(model, SHORT)
    assert isinstance(alone, torch.optim.AdamW)


def test_hidden_matrices_learn_and_have_two_dimensions() -> None:
    model = nn.Sequential(
        nn.Embedding(4, 2), nn.Linear(2, 2), nn.Linear(2, 3).requires_grad_(False)
    )
    model.add_module("head", nn.Linear(3, 4))
    (only,) = hidden_matrices(model)
    assert only is model.get_parameter("1.weight")


def test_both_optimizers_follow_the_schedule() -> None:
    model = DecoderLM(DENSE)
    places: list[tuple[float, float]] = []
    config = TrainConfig(
        6, learning_rate=0.1, muon_rate=0.02, warmup=2, decay=0.5, weight_decay=0.5, clip=1e9
    )

    query = model.get_parameter("layers.0.attention.query.weight")

    def note() -> None:
        places.append((model.embedding.weight[0, 0].item(), query[0, 0].item()))

    def loss(batch: Tensor) -> Tensor:
        return 0.0 * torch.stack([p.sum() for p in model.parameters()]).sum()

    note()
    fit(model, loss, forever(), config, after_step=note, progress=False)
    # Without a gradient only the decay moves a weight: by its rate, times 0.5.
    for index, rate in ((0, 0.1), (1, 0.02)):
        kept = [after[index] / before[index] for before, after in pairwise(places)]
        assert kept == pytest.approx([1 - rate * config.rate(step) * 0.5 for step in range(6)])


def test_muon_without_a_matrix_to_move_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"muon_rate is 0\.02 but no linear layer inside the model"
    ):
        make_optimizers(Slope(), replace(SHORT, muon_rate=0.02))


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_a_text_that_repeats_is_learned(config: LMConfig) -> None:
    # The token before the last decides, so the current one is not enough: attention must help.
    text = torch.tensor([0, 1, 2, 1, 3, 2, 0, 3]).repeat(60)
    torch.manual_seed(0)
    model = DecoderLM(config)
    history = train_language_model(
        model, text, TrainConfig(60, 4, 16, warmup=5), seed=0, progress=False
    )
    assert history.losses[0] > 2.5
    assert sum(history.losses[-5:]) / 5 < 0.3
    assert token_losses(model, text).median().item() < 0.1
    assert history.seconds > 0


def test_the_same_seed_repeats_a_run_bit_for_bit() -> None:
    first, second, other = (make_model() for _ in range(3))
    histories = [train(first, seed=1), train(second, seed=1), train(other, seed=2)]
    assert histories[0].losses == histories[1].losses
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert histories[0].losses != histories[2].losses


def test_the_seed_leaves_other_randomness_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    model = make_model()
    torch.manual_seed(3)
    train(model, seed=1)
    assert torch.equal(torch.rand(1), expected)


# --- the order of reading ----------------------------------------------------------------------


@pytest.mark.parametrize("left_over", [0, 3])
def test_each_token_is_predicted_once_in_a_pass(left_over: int) -> None:
    text = torch.arange(1 + 6 * 5 + left_over)
    batches = shuffled_windows(text, length=5, batch_size=2, seed=0)
    passes = [list(islice(batches, 3)) for _ in range(2)]
    for batch in (batch for each in passes for batch in each):
        assert batch.shape == (2, 6)
        assert torch.equal(batch - batch[:, :1], torch.arange(6).expand(2, 6))
    for each in passes:
        targets = torch.cat([batch[:, 1:].flatten() for batch in each])
        assert targets.sort().values.tolist() == list(range(1, 31))
    assert not torch.equal(torch.stack(passes[0]), torch.stack(passes[1]))


def test_windows_that_make_no_whole_batch_are_left_for_another_pass() -> None:
    batches = shuffled_windows(torch.arange(1 + 6 * 5), length=5, batch_size=4, seed=0)
    starts = [batch[:, 0].tolist() for batch in islice(batches, 20)]
    assert all(len(set(each)) == 4 for each in starts)
    assert {start for each in starts for start in each} == set(range(0, 30, 5))


def test_another_seed_reads_in_another_order() -> None:
    text = torch.arange(1 + 20 * 5)
    first, again, other = (next(shuffled_windows(text, 5, 4, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("tokens", "length", "batch_size", "message"),
    [
        (torch.arange(20), 5, 4, "20 tokens make 3 windows of 5, less than a batch of 4; give mor"),
        (torch.zeros(4, 4), 2, 1, r"tokens has shape \(4, 4\); pass \[N\] with at least 2"),
        (torch.arange(20), 0, 4, "length is 0 and batch_size 4; give each at least 1"),
        (torch.arange(20), 5, 0, "length is 5 and batch_size 0; give each at least 1"),
    ],
)
def test_text_that_makes_no_batch_is_named(
    tokens: Tensor, length: int, batch_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(shuffled_windows(tokens, length, batch_size, seed=0))


# --- prompts and completions -------------------------------------------------------------------

example_sizes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=30)


def test_the_mask_begins_where_the_first_token_of_a_completion_is_predicted() -> None:
    # Prompts of 2 and 1 of 4 and 2 tokens. Columns are the tokens at places 1, 2 and 3.
    mask = completion_mask(torch.tensor([2, 1]), torch.tensor([4, 2]))
    assert mask.tolist() == [[False, True, True], [True, False, False]]


def test_lengths_that_are_not_whole_are_named() -> None:
    with pytest.raises(ValueError, match=r"^lengths has dtype torch\.float32; pass int64"):
        completion_mask(torch.tensor([2, 1]), torch.tensor([4.9, 2.0]))
    with pytest.raises(ValueError, match=r"^n_prompt has dtype torch\.float32; pass int64"):
        completion_mask(torch.tensor([1.9, 1.0]), torch.tensor([4, 2]))


def make_examples(sizes: list[tuple[int, int]]) -> list[Example]:
    """Examples whose tokens are all different, so that each can be found again."""
    place = iter(range(1, 10_000))
    return [
        Example(*(torch.tensor([next(place) for _ in range(n)]) for n in size)) for size in sizes
    ]


@given(sizes=example_sizes, batch_tokens=st.integers(15, 60), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_pass_has_each_example_once_with_its_completion_to_learn(
    sizes: list[tuple[int, int]], batch_tokens: int, seed: int
) -> None:
    examples = make_examples(sizes)
    found: list[tuple[list[int], list[int]]] = []
    for batch in completion_batches(examples, batch_tokens, seed):
        assert batch.tokens.numel() <= batch_tokens
        assert batch.learned.shape == (len(batch.tokens), batch.tokens.shape[1] - 1)
        assert (batch.tokens[:, -1] != 0).any()  # as long as its longest example, and no longer
        for row, learned in zip(batch.tokens, batch.learned, strict=True):
            found.append((row[row != 0].tolist(), row[1:][learned].tolist()))
        if len(found) >= len(examples):
            break
    expected = [(torch.cat(each).tolist(), each.completion.tolist()) for each in examples]
    assert sorted(found) == sorted(expected)


def test_prompts_of_one_length_come_together_and_completions_mixed() -> None:
    examples = make_examples([(n, m) for n in (2, 4) for m in (1, 7) for _ in range(50)])
    batches = completion_batches(examples, 110, seed=0)
    passed, mixed, n_batches = 0, 0, 0
    while passed < len(examples):
        batch = next(batches)
        passed, n_batches = passed + len(batch.tokens), n_batches + 1
        prompts = (batch.tokens != 0).sum(1) - batch.learned.sum(1)
        mixed += len(set(batch.learned.sum(1).tolist())) > 1
        assert len(set(prompts.tolist())) == 1 or n_batches > 1
    assert mixed >= n_batches - 2


def test_lengths_come_in_a_random_order() -> None:
    examples = make_examples([(n, 2) for n in range(1, 9) for _ in range(5)])
    batches = islice(completion_batches(examples, 50, seed=0), 6)  # of one pass
    lengths = [batch.tokens.shape[1] for batch in batches]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_another_seed_and_another_pass_have_another_order() -> None:
    examples = make_examples([(2, 3)] * 20)
    first, again, other = (completion_batches(examples, 25, seed) for seed in (0, 0, 1))
    one, two = [list(islice(first, 4)) for _ in range(2)]
    assert all(a.tokens.equal(b.tokens) for a, b in zip(one, again, strict=False))
    for others in (two, list(islice(other, 4))):
        assert not all(a.tokens.equal(b.tokens) for a, b in zip(one, others, strict=True))


def test_logits_of_completions_are_those_of_each_example_alone() -> None:
    model = make_model(DENSE)
    examples = [
        Example(make_tokens(400)[a:b], make_tokens(400)[b:c])
        for a, b, c in ((0, 3, 9), (20, 25, 26), (40, 41, 52))
    ]
    (batch,) = islice(completion_batches(examples, 100, seed=0), 1)
    logits, targets = completion_logits(model, batch)
    by_hand = {}
    for prompt, completion in examples:
        tokens = torch.cat([prompt, completion])
        alone = model(tokens[None, :-1]).logits[0, len(prompt) - 1 :]
        by_hand[tuple(completion.tolist())] = alone
    order = [
        tuple(row[1:][use].tolist()) for row, use in zip(batch.tokens, batch.learned, strict=True)
    ]
    assert targets.tolist() == [token for row in order for token in row]
    # Sums of at most 16 terms in another order: float32 loses a few of its last bits.
    torch.testing.assert_close(
        logits, torch.cat([by_hand[row] for row in order]), rtol=1e-4, atol=1e-5
    )


def test_padding_teaches_nothing() -> None:
    model = make_model(DENSE)
    learned = torch.tensor([[False, True, False, False], [False, True, True, True]])
    gradients = []
    for junk in (0, 9):
        tokens = torch.tensor([[1, 2, 3, junk, junk], [4, 5, 6, 7, 8]])
        loss = F.cross_entropy(*completion_logits(model, CompletionBatch(tokens, learned)))
        gradients.append(torch.autograd.grad(loss, model.embedding.weight)[0])
    assert not gradients[1][9].any()
    assert torch.equal(*gradients)


@pytest.mark.slow
def test_completions_are_learned_and_prompts_are_not() -> None:
    # The completion says the prompt backward; the prompt itself is noise.
    prompts = torch.randint(1, 8, (300, 2), generator=torch.Generator().manual_seed(0))
    examples = [Example(row, torch.cat([row.flip(0), torch.tensor([0])])) for row in prompts]
    torch.manual_seed(0)
    model = DecoderLM(DENSE)
    config = TrainConfig(150, warmup=5, batch_tokens=200, muon_rate=0.02, weight_decay=0.0)
    history = train_on_completions(model, examples, config, seed=0, progress=False)
    assert history.losses[0] > 2
    assert sum(history.losses[-5:]) / 5 < 0.2
    rows = torch.stack([torch.cat(each) for each in examples])
    losses = F.cross_entropy(model(rows[:, :-1]).logits.mT, rows[:, 1:], reduction="none")
    assert losses[:, 1:].mean().item() < 0.2
    assert losses[:, 0].mean().item() > math.log(7)  # no better than guessing among seven


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "there are 0 examples to learn from; give at least 1"),
        ([(1, 1), (0, 2)], "example 1 has 0 tokens of prompt and 2 of completion; give at least 1"),
        ([(3, 0)], "example 0 has 3 tokens of prompt and 0 of completion; give at least 1 of eac"),
        ([(3, 4), (10, 11)], "an example has 21 tokens and a batch at most 20; give larger batch"),
    ],
)
def test_examples_that_cannot_be_learned_are_named(
    sizes: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(completion_batches(make_examples(sizes), 20, seed=0))


# --- balance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "strength", "message"),
    [
        ("auxilliary", 0.1, "method 'auxilliary' is unknown; use none, auxiliary, sequence or bia"),
        ("none", 0.1, "strength is 0.1 but method is none; choose a method"),
        ("bias", 0.0, "strength is 0.0; give bias a positive number"),
        ("sequence", math.inf, "strength is inf; give sequence a positive number"),
        ("auxiliary", -1.0, "strength is -1.0; give auxiliary a positive number"),
    ],
)
def test_a_balance_that_cannot_be_meant_is_named(
    method: Any,  # noqa: ANN401
    strength: float,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Balancing(method, strength)


def test_a_dense_model_has_nothing_to_balance() -> None:
    with pytest.raises(ValueError, match="balancing is bias but the model has no experts; drop it"):
        train(make_model(DENSE), balancing=Balancing("bias", 0.1))
    assert train(make_model(DENSE)).loads is None


def test_loads_count_every_choice_of_every_layer() -> None:
    loads = train(make_model()).loads
    assert loads is not None
    assert loads.shape == (3, 2, 4)
    assert loads.dtype == torch.int64
    assert (loads.sum(dim=2) == SHORT.tokens_per_step * EXPERTS.top_k).all()


def test_loads_are_those_of_the_choices_that_were_made() -> None:
    model = make_model()
    batch = next(shuffled_windows(make_tokens(), 8, 4, seed=0))
    by_hand = [expert_load(routing.experts, 4) for routing in model(batch[:, :-1]).routings]
    loads = train(model).loads
    assert loads is not None
    assert torch.equal(loads[0], torch.stack(by_hand))


def test_bias_moves_as_by_hand_and_moves_nothing_else() -> None:
    left, steered = make_model(), make_model()
    one_step = replace(SHORT, steps=1)
    train(left, one_step)
    train(steered, one_step, Balancing("bias", 0.1))
    for name, value in steered.state_dict().items():
        assert value.equal(left.state_dict()[name]) != name.endswith("expert_bias"), name

    model = make_model()
    loads = train(model, balancing=Balancing("bias", 0.1)).loads
    assert loads is not None
    for layer, (router, by_hand) in enumerate(zip(model.routers, left.routers, strict=True)):
        assert not by_hand.expert_bias.any()
        for load in loads[:, layer]:
            update_expert_bias(by_hand, load, 0.1)
        assert torch.equal(router.expert_bias, by_hand.expert_bias)


def added(model: DecoderLM, batch: Tensor, method: str) -> Tensor:
    """What a balance of strength 1 adds to the loss, with the losses of `slingshot.moe`."""
    total = torch.zeros(())
    for routing in model(batch[:, :-1]).routings:
        if method == "auxiliary":
            total = total + load_balancing_loss(routing.scores, routing.experts, 4)
        else:
            total = total + sequence_balance_loss(routing.scores.view(len(batch), -1, 4), 2)
    return total


@pytest.mark.parametrize("method", ["auxiliary", "sequence"])
def test_a_balance_loss_is_added_and_not_reported(method: Any) -> None:  # noqa: ANN401
    model = make_model()
    batch = next(shuffled_windows(make_tokens(), 8, 4, seed=0))
    prediction = F.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
    extra = 0.3 * added(model, batch, method)
    assert extra.item() > 0.3
    balancing = Balancing(method, 0.3)
    ours = balance_loss(model(batch[:, :-1]).routings, balancing, batch_size=4)
    assert ours.item() == pytest.approx(extra.item())
    expected = torch.autograd.grad(prediction + extra, model.routers[0].weight)[0]

    found: list[Tensor | None] = []
    history = train(
        model,
        replace(SHORT, steps=1, clip=1e6),
        balancing,
        after_step=lambda: found.append(model.routers[0].weight.grad),
    )
    assert history.losses == [pytest.approx(prediction.item())]
    assert found[0] is not None
    torch.testing.assert_close(found[0], expected)
    assert not any(router.expert_bias.any() for router in model.routers)


@pytest.mark.parametrize("method", ["none", "bias"])
def test_without_a_balance_loss_nothing_is_added(method: Any) -> None:  # noqa: ANN401
    balancing = Balancing(method, 0.1 if method == "bias" else 0.0)
    routings = make_model()(make_tokens()[:32].view(4, 8)).routings
    assert balance_loss(routings, balancing, batch_size=4).item() == 0


# --- measuring ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 17, 18, 100])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_token_losses_are_those_of_one_token_after_another(length: int, batch_size: int) -> None:
    model, tokens = make_model(DENSE), make_tokens(18)
    by_hand = []
    for place in range(1, 18):
        start = (place - 1) // length * length
        scores = model(tokens[None, start:place]).logits[0, -1].log_softmax(dim=0)
        by_hand.append(-scores[tokens[place]])
    losses = token_losses(model, tokens, length=length, batch_size=batch_size)
    assert not losses.requires_grad
    torch.testing.assert_close(losses, torch.stack(by_hand).detach())


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_of_the_model(training: bool) -> None:
    model = make_model(DENSE).train(training)
    token_losses(model, make_tokens(20))
    assert model.training is training
    with pytest.raises(ValueError, match="token 99 is not within"):
        token_losses(model, torch.tensor([1, 99, 1]))
    assert model.training is training


@pytest.mark.parametrize(
    ("tokens", "length", "message"),
    [
        (torch.tensor([1]), 8, r"tokens has shape \(1,\); pass \[N\] with at least 2"),
        (torch.ones(2, 2), 8, r"tokens has shape \(2, 2\); pass \[N\] with at least 2"),
        (torch.tensor([1, 2]), 0, "length is 0 and batch_size 64; give each at least 1"),
    ],
)
def test_text_that_cannot_be_measured_is_named(tokens: Tensor, length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_losses(make_model(DENSE), tokens, length=length)


# --- how it stops ------------------------------------------------------------------------------


def test_batches_that_run_out_are_named() -> None:
    model = Slope()
    message = "batches ran out after 2 of 3 steps; give more"
    with pytest.raises(ValueError, match=message):
        fit(model, lambda batch: model.vector.sum(), [torch.zeros(1)] * 2, SHORT, progress=False)


def test_a_model_without_anything_to_learn_is_named() -> None:
    model = Slope().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient; unfreeze"):
        fit(model, lambda batch: model.vector.sum(), forever(), SHORT, progress=False)


def spoiled_loss(model: Slope, batch: Tensor) -> Tensor:
    return batch.sum() * model.vector.sum()


def spoiled_gradient(model: Slope, batch: Tensor) -> Tensor:
    root: Tensor = (0.0 * model.vector.sum()).sqrt()  # 0, with an infinite slope
    return model.vector.sum() + (root if batch.isnan().any() else 0.0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (spoiled_loss, "the loss is nan at step 1; lower learning_rate or check the batches"),
        (spoiled_gradient, "the norm of the gradient is nan at step 1; lower learning_rate or"),
    ],
)
def test_what_is_not_finite_is_named_and_spoils_no_weight(
    loss: Callable[[Slope, Tensor], Tensor], message: str
) -> None:
    model = Slope()
    batches = [torch.ones(1), torch.full((1,), math.nan), torch.ones(1)]
    with pytest.raises(FloatingPointError, match=message):
        fit(model, lambda batch: loss(model, batch), batches, SHORT, progress=False)
    assert model.vector.isfinite().all()
    assert (model.vector < 1).all()  # what the first step has learned


def test_ctrl_c_keeps_what_was_learned() -> None:
    model = Slope()

    def interrupted() -> Iterator[Tensor]:
        yield from [torch.ones(1)] * 2
        raise KeyboardInterrupt

    def loss(batch: Tensor) -> Tensor:
        return model.vector.sum()

    with pytest.raises(KeyboardInterrupt):
        fit(model, loss, interrupted(), SHORT, progress=False)
    learned = model.vector.detach().clone()
    assert (learned < 1).all()
    fit(model, loss, forever(), SHORT, progress=False)
    assert (model.vector < learned).all()


# --- the progress bar --------------------------------------------------------------------------

IN_A_KERNEL = """
import torch
from slingshot.train import TrainConfig, fit

def run(**options):
    model = torch.nn.Linear(1, 1)
    batches = [torch.ones(1)] * 976
    fit(model, lambda batch: model(batch).sum(), batches, TrainConfig(976), **options)
"""


def test_a_stored_bar_reads_the_same_after_each_run(
    run_notebook: Callable[..., nbformat.NotebookNode],
) -> None:
    notebook = run_notebook(IN_A_KERNEL, "run()", "run()", "run(progress=False)")
    _, first, second, hidden = notebook.cells
    for cell in (first, second):
        (output,) = cell.outputs
        assert output.data["text/plain"] == "976 steps of 2,048 tokens"
        assert "application/vnd.jupyter.widget-view+json" in output.data
    assert hidden.outputs == []


@pytest.mark.parametrize("progress", [True, False])
def test_nothing_is_printed_where_nobody_watches(
    progress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Slope()
    fit(model, lambda batch: model.vector.sum(), forever(), SHORT, progress=progress)
    assert capfd.readouterr() == ("", "")
