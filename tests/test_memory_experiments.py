"""The experiments of the part on memory: equal parameters, who chooses, what is measured."""

import json
from dataclasses import replace

import attention_kinds
import drafting
import indexer
import pytest
import torch
from indexer import HEAD_DIM, HEADS, HiddenNumber, Indexers
from torch import Tensor

from slingshot import sizes
from slingshot.attention import Attention, LightningIndexer, rotate, rotations, sparse_attention
from slingshot.lm import DecoderLM, LMConfig
from slingshot.speculative import MultiTokenHead

TINY = LMConfig(vocab_size=23, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=24)


@pytest.fixture
def model() -> DecoderLM:
    """A model whose matrices all do something."""
    torch.manual_seed(0)
    model = DecoderLM(TINY).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(23, (6, 30), generator=torch.Generator().manual_seed(1))


def test_all_kinds_have_the_parameters_of_mha_within_half_a_channel() -> None:
    wanted = sizes.count_parameters(attention_kinds.MHA.sizes()).total
    channel = 3 * attention_kinds.MHA.d_model * attention_kinds.MHA.n_layers
    for run in attention_kinds.runs():
        model, train = attention_kinds.build(run.configuration)
        counted = sum(parameter.numel() for parameter in model.parameters())
        assert abs(counted - wanted) <= channel / 2
        assert train.steps == attention_kinds.STEPS
        assert json.loads(json.dumps(run.configuration)) == run.configuration


def test_the_latent_is_as_small_as_one_shared_head() -> None:
    mqa = attention_kinds.KINDS["MQA"].sizes().attention
    assert attention_kinds.LATENT.cached_elements == mqa.cached_elements


# --- a head that guesses --------------------------------------------------------------------------


def test_equal_flops_count_the_head() -> None:
    own, extra = drafting.multiplied()
    model, _ = attention_kinds.build(drafting.runs()[0].configuration)
    head = MultiTokenHead.of(model)
    vectors = sum(p.numel() for p in head.parameters() if p.ndim == 1)
    matrices = sum(p.numel() for p in head.parameters() if p.ndim > 1) + model.head.weight.numel()
    assert 0 <= extra - matrices <= vectors  # the count has the norms of a layer in it
    steps = {run.name: run.configuration["train"]["steps"] for run in drafting.runs()}
    assert steps["with a head"] == attention_kinds.STEPS
    assert abs(steps["without, equal FLOPs"] * own - attention_kinds.STEPS * (own + extra)) <= own


def test_a_head_learns_beside_the_model_that_is_measured_alone() -> None:
    torch.manual_seed(0)
    model, train = attention_kinds.build(drafting.runs()[0].configuration)
    head = MultiTokenHead.of(model)
    both = torch.nn.ModuleDict({"model": model, "head": head})
    before = {name: parameter.clone() for name, parameter in both.named_parameters()}
    drafting.train_both(model, head, replace(train, steps=2, batch_size=2), seed=0)
    still = [name for name, p in both.named_parameters() if torch.equal(p, before[name])]
    assert still == []
    assert drafting.WEIGHT == 0.3


def test_what_is_accepted_is_counted_over_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "NEW_TOKENS", 7)
    model, _ = attention_kinds.build(drafting.runs()[0].configuration)
    counted = drafting.own_text(model, MultiTokenHead.of(model), 1.0, seed=0)
    assert 0 <= counted["accepted"] <= counted["proposed"] <= counted["steps"]
    assert counted["steps"] + counted["accepted"] >= 7 * drafting.PROMPTS


# --- who chooses ----------------------------------------------------------------------------------


def test_to_read_all_is_to_read_as_ever(model: DecoderLM, tokens: Tensor) -> None:
    expected = model(tokens).logits
    for k in (None, 30, 100):
        layers = indexer.reading(model, indexer.by_attention, k)
        torch.testing.assert_close(model(tokens).logits, expected)
        assert all(not each.kept for each in layers)  # none leaves any out


@pytest.mark.parametrize("choosers", [*indexer.REFERENCES.values(), Indexers(TINY)])
def test_zeroed_weights_are_the_library_s_sparse_attention(
    model: DecoderLM, tokens: Tensor, choosers: indexer.Choosers
) -> None:
    torch.manual_seed(0)
    (layer, _) = indexer.reading(model, choosers, 6)
    x, turns = torch.randn(2, 30, 16), model.rotations(30)
    a = layer.attention
    query, key = (
        rotate(a._heads(part(x), heads), turns)
        for part, heads in ((a.query, a.n_heads), (a.key, a.n_kv_heads))
    )
    scores = layer.choose(a, x, indexer.attention_weights(query, key)).expand(2, -1, -1)
    found = sparse_attention(query, key, a._heads(a.value(x), a.n_kv_heads), scores, 6)
    torch.testing.assert_close(layer(x, turns), a.output(found.transpose(1, 2).flatten(2)))


def test_the_true_weights_keep_more_than_any_other_choice(model: DecoderLM, tokens: Tensor) -> None:
    kept = {}
    for name, choosers in indexer.REFERENCES.items():
        first = indexer.reading(model, choosers, 6)[0]  # before the choices lead apart
        model(tokens[:1])
        (kept[name],) = first.kept
    assert kept["attention"] > max(kept["window"], kept["chance"])
    assert 0 < min(kept.values()) < max(kept.values()) < 1


def test_what_is_kept_is_counted_where_there_is_a_choice(model: DecoderLM, tokens: Tensor) -> None:
    first = indexer.reading(model, indexer.by_window, 29)[0]
    model(tokens[:1])
    (kept,) = first.kept
    # Only the last of 30 queries leaves one token out.
    weights = _weights(first.attention, model, tokens[:1])
    assert kept == pytest.approx(1 - float(weights[:, :, 29, 1].mean()), abs=1e-6)


def _weights(attention: Attention, model: DecoderLM, tokens: Tensor) -> Tensor:
    """The true weights of the first layer."""
    layer = model.layers[0]
    x = layer.attention_norm(model.embedding(tokens))  # type: ignore[operator]
    turns = model.rotations(tokens.shape[1])
    query = rotate(attention._heads(attention.query(x), attention.n_heads), turns)
    key = rotate(attention._heads(attention.key(x), attention.n_kv_heads), turns)
    return indexer.attention_weights(query, key)


def test_a_window_is_the_first_token_and_the_last_ones() -> None:
    x = torch.zeros(1, 10, 4)
    attention = Attention(4, 1, 4)
    (window,) = indexer.chosen(indexer.by_window(0)(attention, x, x), 4)
    assert window[7].nonzero().flatten().tolist() == [0, 5, 6, 7]
    assert window[2].nonzero().flatten().tolist() == [0, 1, 2]
    random = [indexer.chosen(indexer.by_chance(i)(attention, x, x), 4)[0] for i in range(2)]
    assert all(bool(each[7, [0, 7]].all()) and int(each[7].sum()) == 4 for each in random)
    assert not torch.equal(*random)


# --- the bug that is planted ----------------------------------------------------------------------


def test_the_wrong_layout_turns_neighbors() -> None:
    torch.manual_seed(0)
    right = Indexers(TINY).requires_grad_(False)
    wrong = right.in_wrong_layout()
    one = right.each[1]
    assert isinstance(one, LightningIndexer)
    torch.nn.init.normal_(one.key_norm.weight)
    torch.nn.init.normal_(one.key_norm.bias)
    wrong = right.in_wrong_layout()
    x = torch.randn(1, 12, 16)
    query = one.query(x).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
    key = one.key_norm(one.key(x))
    turns = rotations(12, HEAD_DIM, TINY.rope_base, torch.device("cpu"))
    cos, sin = turns[0, :, : HEAD_DIM // 2], turns[1, :, HEAD_DIM // 2 :]

    def neighbors(v: Tensor) -> Tensor:
        even, odd = v[..., ::2], v[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    products = (neighbors(query) @ neighbors(key)[:, None].mT).relu()
    weight = one.weight(x) * (HEADS * HEAD_DIM) ** -0.5
    expected = torch.einsum("bhst,bsh->bst", products, weight)[0]
    attention, visible = Attention(16, 4, 4), ~indexer.future(12)
    found = {
        which: choosers(1)(attention, x, x)[0]
        for which, choosers in {"right": right, "wrong": wrong}.items()
    }
    torch.testing.assert_close(found["wrong"][visible], expected[visible])
    assert not torch.allclose(found["right"][visible], expected[visible], atol=1e-2)
    # Where nothing turns the layouts agree: a test of one token sees nothing.
    torch.testing.assert_close(found["wrong"][0, 0], found["right"][0, 0])


# --- learning and measuring -----------------------------------------------------------------------


def test_indexers_learn_the_attention_of_a_frozen_model(model: DecoderLM, tokens: Tensor) -> None:
    before = [parameter.clone() for parameter in model.parameters()]
    indexers, losses = indexer.train(model, tokens.repeat(20, 1), seed=0)
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    kept = {}
    for name, choosers in {"taught": indexers, "untaught": Indexers(TINY)}.items():
        first = indexer.reading(model, choosers, 6)[0]
        with torch.no_grad():
            model(tokens[:1])
        (kept[name],) = first.kept
    assert kept["taught"] > kept["untaught"]


def test_each_window_is_a_step_of_its_own(
    model: DecoderLM, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing moved, the gradient after three equal windows is that of one."""
    monkeypatch.setattr(indexer, "RATE", 0.0)
    after = {n: indexer.train(model, tokens[:1].repeat(n, 1), seed=0)[0] for n in (1, 3)}
    one, three = (after[n].get_parameter("each.0.query.weight").grad for n in (1, 3))
    assert one is not None
    assert one.abs().max() > 0
    torch.testing.assert_close(three, one)


def test_of_a_text_the_number_is_measured_apart(model: DecoderLM, tokens: Tensor) -> None:
    about = torch.zeros(30, dtype=torch.bool)
    about[[10, 11, 12, *range(23, 30)]] = True
    read = indexer.read_text(model, HiddenNumber(tokens[0], about))
    losses = torch.nn.functional.cross_entropy(
        model(tokens[:1, :-1]).logits[0], tokens[0, 1:], reduction="none"
    )
    kept = [place for place in range(1, 30) if not about[place]]
    assert read["losses"] == pytest.approx(float(losses[[p - 1 for p in kept]].mean()), abs=1e-5)
    assert read["digit_losses"] == pytest.approx(float(losses[-5:].mean()), abs=1e-4)
    guesses = model(tokens[:1, :-1]).logits[0, -5:].argmax(-1)
    assert read["recalled"] == int((guesses == tokens[0, -5:]).sum())


class Digits:
    """A tokenizer of characters."""

    def encode(self, text: str) -> "Digits":
        self.ids = [ord(character) for character in text]
        return self


def test_what_is_asked_for_is_what_was_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    filler = torch.arange(1000, 5000)

    class Loaded:
        tokenizer = Digits()

    monkeypatch.setattr(indexer, "pretrained", Loaded)
    monkeypatch.setattr(indexer, "parts", lambda: (filler[:0], filler))
    texts = indexer.hidden_numbers.__wrapped__(512, 8)
    for tokens, about in texts:
        assert len(tokens) == len(about) == 512
        written = "".join(chr(each) for each in tokens.tolist() if each < 1000)
        first, second = written.split(indexer.SENTENCE)[1:]
        assert first[:5] == second and second.isdigit()  # noqa: PT018
        assert bool((tokens[about] < 1000).all()) and bool((tokens[~about] >= 1000).all())  # noqa: PT018
        assert 64 <= int(about.nonzero()[0]) < 256  # named in the first half
    assert len({tuple(tokens[-5:].tolist()) for tokens, _ in texts}) == 8


def test_no_window_is_learned_that_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer, "parts", lambda: (torch.arange(2000), torch.arange(2000, 2500)))
    windows = indexer.training_windows(0)
    assert windows.shape == (indexer.WINDOWS, indexer.LENGTH)
    assert int(windows.max()) < 2000
    assert not torch.equal(windows, indexer.training_windows(1))


def test_all_runs_differ() -> None:
    assert indexer.spread(100, 4) == [0, 25, 50, 75]
    runs = indexer.runs()
    assert len({json.dumps(run.configuration) for run in runs}) == len(runs)
