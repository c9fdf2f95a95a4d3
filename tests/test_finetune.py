"""Fine-tuning: what learns, LoRA, the loss at the learned places, and text that is mixed in."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slingshot import finetune, sizes
from slingshot.completions import CompletionBatch, completion_batches, completion_logits
from slingshot.distill import encode_traces
from slingshot.finetune import LoRALinear, Mixture, add_lora, fine_tune, learn_layers, merge_lora
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.quant import Int8Linear
from slingshot.tasks import ShellGame, write_traces
from slingshot.train import TrainConfig, train_on_completions

GAME = ShellGame(swaps=(1, 3))
SMALL = LMConfig(GAME.vocabulary_size, 16, 3, 2, 24, n_kv_heads=1, tied_embedding=True)
TRAIN = TrainConfig(4, learning_rate=1e-2, batch_tokens=256)
TRACES = write_traces(GAME, 30, {"careful": 1.0}, generator=torch.Generator().manual_seed(0))
EXAMPLES = encode_traces(GAME, TRACES)
TOKENS = torch.randint(GAME.vocabulary_size, (200,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> DecoderLM:
    """A model whose matrices all do something."""
    torch.manual_seed(0)
    model = DecoderLM(SMALL)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("last", "embedding", "moved"),
    [
        (None, True, {"embedding", "layers.0", "layers.1", "layers.2", "norm"}),
        (None, False, {"layers.0", "layers.1", "layers.2", "norm"}),
        (2, True, {"layers.1", "layers.2", "norm"}),
        (1, False, {"layers.2", "norm"}),
    ],
)
def test_what_is_to_learn_moves_and_nothing_else(
    last: int | None, embedding: bool, moved: set[str], model: DecoderLM
) -> None:
    before = weights(model)
    n_learning = learn_layers(model, last, embedding=embedding)
    fine_tune(model, EXAMPLES, TRAIN, progress=False)
    found = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {".".join(name.split(".")[: 2 if "layers" in name else 1]) for name in found} == moved
    assert n_learning == sum(before[name].numel() for name in found)


def test_a_number_of_layers_that_cannot_be_is_refused(model: DecoderLM) -> None:
    for last in (0, 4):
        with pytest.raises(ValueError, match=f"last is {last}; give a whole number, 1 to 3"):
            learn_layers(model, last)


def test_all_that_learns_in_float32_is_what_the_library_learns(model: DecoderLM) -> None:
    twin = deepcopy(model)
    ours = fine_tune(model, EXAMPLES, TRAIN, seed=3, progress=False)
    theirs = train_on_completions(twin, EXAMPLES, TRAIN, seed=3, progress=False)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_head_scores_what_is_learned_and_nothing_else(model: DecoderLM) -> None:
    batch = next(completion_batches(EXAMPLES, 256, 0))
    rows: list[int] = []
    model.head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    logits, targets = finetune.learned_logits(model, batch)
    assert rows == [int(batch.learned.sum())]
    expected, wanted = completion_logits(model, batch)
    torch.testing.assert_close(logits, expected)
    assert torch.equal(targets, wanted)


def test_a_mask_that_does_not_fit_is_refused(model: DecoderLM) -> None:
    batch = next(completion_batches(EXAMPLES, 256, 0))
    for learned in (batch.learned[:, 1:], batch.learned.long()):
        with pytest.raises(ValueError, match="learned has shape"):
            finetune.learned_logits(model, batch._replace(learned=learned))


def test_products_are_in_bfloat16_and_weights_are_not(model: DecoderLM) -> None:
    seen: set[tuple[torch.dtype, ...]] = set()
    query = model.get_submodule("layers.0.attention.query")
    query.register_forward_hook(lambda module, _, out: seen.add((module.weight.dtype, out.dtype)))
    config = replace(TRAIN, steps=25)
    history = fine_tune(model, EXAMPLES, config, bfloat16=True, progress=False)
    assert seen == {(torch.float32, torch.bfloat16)}
    assert history.losses[-1] < history.losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# --- LoRA ----------------------------------------------------------------------------------------


def test_lora_changes_nothing_at_first_and_learns_beside_what_is_frozen(model: DecoderLM) -> None:
    tokens = TOKENS[:40].view(2, 20)
    before, expected = weights(model), model(tokens).logits
    n_learning = add_lora(model, rank=2)
    assert torch.equal(model(tokens).logits, expected)
    linears = [name for name, each in model.named_modules() if isinstance(each, LoRALinear)]
    assert len(linears) == 3 * 6
    fine_tune(model, EXAMPLES, TRAIN, progress=False)
    assert not torch.allclose(model(tokens).logits, expected)
    after = weights(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    sizes = [before[f"{name}.weight"].shape for name in linears]
    assert n_learning == sum(2 * (n_out + n_in) for n_out, n_in in sizes)


def test_merged_lora_is_one_plain_layer(model: DecoderLM) -> None:
    tokens = TOKENS[:40].view(2, 20)
    add_lora(model, rank=3, scale=0.5)
    fine_tune(model, EXAMPLES, TRAIN, progress=False)
    expected = model(tokens).logits
    merge_lora(model)
    assert not any(isinstance(each, LoRALinear) for each in model.modules())
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in model.parameters())


def test_a_bias_is_not_lost_without_a_word() -> None:
    with pytest.raises(ValueError, match="linear has a bias"):
        LoRALinear(nn.Linear(2, 1), rank=1)


def test_lora_by_hand() -> None:
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0]])
    lora = LoRALinear(linear, rank=1, scale=10.0)
    lora.down.data, lora.up.data = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5]])
    # 1·3 + 2·4 = 11, beside it 10 · 0.5 · (3 - 4) = -5.
    assert lora(torch.tensor([[3.0, 4.0]])).item() == 6
    assert torch.equal(lora.merged().weight, torch.tensor([[6.0, -3.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_lora_has_the_type_of_its_layer(dtype: torch.dtype) -> None:
    lora = LoRALinear(nn.Linear(4, 3, bias=False).to(dtype), rank=2)
    assert {p.dtype for p in lora.parameters()} == {dtype}
    assert lora(torch.ones(2, 4, dtype=dtype)).dtype == dtype
    assert lora.merged().weight.dtype == dtype


def test_lora_on_lora_is_refused_and_after_merging_it_is_not(model: DecoderLM) -> None:
    n_learning = add_lora(model, rank=2)
    with pytest.raises(ValueError, match="model has LoRA already; call merge_lora first"):
        add_lora(model, rank=2)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == n_learning
    merge_lora(model)
    assert add_lora(model, rank=2) == n_learning


def test_a_rank_below_one_is_refused(model: DecoderLM) -> None:
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(model, 0)
    assert not any(isinstance(each, LoRALinear) for each in model.modules())


# --- general text --------------------------------------------------------------------------------


def test_text_that_is_mixed_in_is_learned_beside_the_examples(model: DecoderLM) -> None:
    pattern = torch.arange(200) % 5
    kept, mixed = deepcopy(model), deepcopy(model)
    long: dict[str, Any] = {"progress": False}
    config = TrainConfig(30, learning_rate=1e-2, batch_tokens=256)
    alone = fine_tune(kept, EXAMPLES, config, **long)
    beside = fine_tune(mixed, EXAMPLES, config, mixture=Mixture(pattern, 2, 20), **long)

    def loss(learner: DecoderLM) -> float:
        window = pattern[None, :21]
        learned = torch.ones(1, 20, dtype=torch.bool)
        return finetune.completion_loss(learner, CompletionBatch(window, learned)).item()

    assert loss(mixed) < 0.5 * loss(kept)
    assert len(beside.losses) == len(alone.losses) == 30
    assert beside.losses[0] == pytest.approx(alone.losses[0])  # of the completions alone


def test_no_examples_are_refused(model: DecoderLM) -> None:
    with pytest.raises(ValueError, match="0 examples"):
        fine_tune(model, [], TRAIN, progress=False)


def test_a_pass_reads_each_example_once() -> None:
    n_batches = finetune.batches_in_a_pass(EXAMPLES, 256, seed=5)
    batches = completion_batches(EXAMPLES, 256, 5)
    assert sum(len(next(batches).tokens) for _ in range(n_batches)) == len(EXAMPLES)
    assert n_batches > 1
    with pytest.raises(ValueError, match="0 examples"):
        finetune.batches_in_a_pass([], 256)


@pytest.mark.parametrize("change", ["LoRA", "INT8"])
def test_absorbed_latents_follow_the_layer_that_is_there(change: str) -> None:
    """They took its ``weight``, which a layer with LoRA or in few bits is more than."""
    torch.manual_seed(0)
    latent = sizes.LatentAttention(2, 16, None, 8, 4, 8)
    model = DecoderLM(replace(SMALL, n_kv_heads=None, tied_embedding=False, attention=latent))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    attention: Any = model.layers[0].attention
    if change == "LoRA":
        add_lora(model, 4)
        nn.init.normal_(attention.unpack.up)
    else:
        attention.unpack = Int8Linear.from_linear(attention.unpack)
    x = torch.randn(2, 9, 16)
    # The inputs of a layer in few bits are rounded as well: latents here, unit vectors there.
    tolerance = {"LoRA": 1e-5, "INT8": 0.03}[change]
    with torch.no_grad():
        found, expected = attention(x, absorbed=True), attention(x)
    assert float((found - expected).norm() / expected.norm()) < tolerance


def test_a_model_with_lora_writes_what_the_merged_one_writes() -> None:
    torch.manual_seed(0)
    latent = sizes.LatentAttention(2, 8, None, 4, 4, 4)
    model = DecoderLM(replace(SMALL, n_kv_heads=None, tied_embedding=False, attention=latent))
    add_lora(model, 4)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    merged = deepcopy(model)
    merge_lora(merged)
    prompt = [TOKENS[:5]]
    (ours,), (theirs,) = (
        generate(each, prompt, max_new_tokens=20, temperature=0) for each in (model, merged)
    )
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("last", [True, 1.5, 0, 4, float("nan")])
def test_layers_that_cannot_be_counted_are_named(last: float, model: DecoderLM) -> None:
    with pytest.raises(ValueError, match=r"^last is "):
        learn_layers(model, last)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [{"windows": 0}, {"length": -3}, {"length": 2.5}, {"weight": -1.0}, {"weight": float("nan")}],
)
def test_a_mixture_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} is "):
        Mixture(TOKENS, **settings)


def test_a_scale_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^scale is nan"):
        LoRALinear(nn.Linear(4, 4, bias=False), 2, scale=float("nan"))


def test_a_batch_with_nothing_to_learn_has_no_loss(model: DecoderLM) -> None:
    tokens = TOKENS[None, :6]
    batch = CompletionBatch(tokens, torch.zeros(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="no token to learn"):
        finetune.completion_loss(model, batch)
