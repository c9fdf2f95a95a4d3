"""Speculative decoding is exact: the tokens of `generate`, or tokens of the same distribution."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from slingshot import sizes, speculative
from slingshot.lm import DecoderLM, LMConfig, generate
from slingshot.speculative import (
    Accepted,
    Draft,
    Guess,
    MultiTokenHead,
    PromptLookup,
    accept,
    speculative_generate,
)

LATENT = sizes.LatentAttention(4, 8, None, 4, 4, 4)
CONFIGS = {
    "heads": LMConfig(24, 32, 2, 4, 40, n_kv_heads=2),
    "latent": LMConfig(24, 32, 2, 4, 40, attention=LATENT),
}


def make_model(config: LMConfig, spread: float = 0.25) -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=spread)
    return model.double()


class Copied:
    """Drafts what stands in a text that is known beforehand, with some tokens made wrong."""

    def __init__(self, text: Tensor, wrong: float) -> None:
        self.text, self.wrong = text, wrong

    def start(self, model: DecoderLM, room: int) -> Guess:
        rng = np.random.default_rng(0)

        def guess(
            text: Tensor, hidden: Tensor, n: int, temperature: float, source: object
        ) -> Draft:
            tokens = self.text[len(text) : len(text) + n].clone()
            off = torch.from_numpy(rng.random(len(tokens)) < self.wrong)
            tokens[off] = (tokens[off] + 1) % model.config.vocab_size
            return Draft(tokens)

        return guess


# --- the tokens of generate ------------------------------------------------------------------


def settings_at(temperature: float, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "max_new_tokens": 40,
        "temperature": temperature,
        "end": 3,
        "generator": generator,
    }


@functools.cache
def generated(kind: str, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    """A prompt, and what the model of that kind writes to it without drafts."""
    prompt = torch.randint(24, (3 + seed,), generator=torch.Generator().manual_seed(seed))
    model = make_model(CONFIGS[kind])
    return prompt, generate(model, [prompt], **settings_at(temperature, seed))[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("n_draft", [0, 1, 4])
def test_the_tokens_are_those_of_generate(kind: str, temperature: float, n_draft: int) -> None:
    model = make_model(CONFIGS[kind])
    for seed in range(4):
        prompt, expected = generated(kind, temperature, seed)
        drafters: list[Any] = [
            PromptLookup(2, 1),
            Copied(torch.cat([prompt, expected]), 0.0),
            Copied(torch.cat([prompt, expected]), 0.3),
        ]
        if not temperature:
            drafters.append(MultiTokenHead.of(model))
        for drafter in drafters:
            written = speculative_generate(
                model, prompt, drafter, n_draft=n_draft, **settings_at(temperature, seed)
            )
            assert torch.equal(written.tokens, expected)
            assert 0 <= written.accepted <= written.proposed <= n_draft * written.steps
            assert len(written.tokens) <= written.steps + written.accepted


def test_a_draft_that_is_right_saves_steps() -> None:
    model, prompt = make_model(CONFIGS["heads"]), torch.tensor([1, 2])
    expected = generate(model, [prompt], max_new_tokens=40, temperature=0)[0]
    drafter = Copied(torch.cat([prompt, expected]), 0.0)
    written = speculative_generate(
        model, prompt, drafter, max_new_tokens=40, n_draft=4, temperature=0
    )
    assert (written.steps, written.accepted, written.proposed) == (8, 32, 32)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("place", range(1, 12))
def test_guesses_behind_the_end_are_not_accepted(place: int, temperature: float) -> None:
    model, prompt = make_model(CONFIGS["heads"]), torch.tensor([1, 2])

    def settings() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        return {"max_new_tokens": 40, "temperature": temperature, "generator": generator}

    text = generate(model, [prompt], **settings())[0]
    end = int(text[place])
    n = text.tolist().index(end) + 1  # it may come earlier
    drafter = Copied(torch.cat([prompt, text]), 0.0)  # all guesses are right
    written = speculative_generate(model, prompt, drafter, n_draft=4, end=end, **settings())
    assert torch.equal(written.tokens, text[:n])
    # Each step writes four guesses and a token of its own, until the end is among them.
    steps, rest = divmod(n, 5)
    assert (written.steps, written.accepted) == (steps + bool(rest), 4 * steps + rest)


def test_prompt_lookup_takes_the_latest_place_and_the_longest_match() -> None:
    def look(text: list[int], n: int = 3) -> list[int]:
        return PromptLookup(3, 1).look_up(torch.tensor(text), n).tolist()

    assert look([5, 6, 7, 1, 2, 5, 6, 7]) == [1, 2, 5]
    assert look([5, 6, 7, 1, 9, 6, 7, 2, 5, 6, 7]) == [1, 9, 6]  # three beat a later two
    assert look([4, 1, 4, 2, 4, 3, 4]) == [3, 4]
    assert look([4, 4, 4, 4]) == [4]
    assert look([1, 2, 3]) == look([1]) == []
    for longest, shortest in ((0, 0), (1, 2), (2, 0)):
        with pytest.raises(ValueError, match="; give"):
            PromptLookup(longest, shortest)


# --- the rule --------------------------------------------------------------------------------

N = 4000  # places at which the number that decides is tried; an interval is off by less than 1 / N


def outcome_shares(rule: Callable[..., Accepted], p: Tensor, q: Tensor) -> Tensor:
    """How often each token comes out if drafts come from ``q``: exact, but for the grid."""
    uniform = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    shares = torch.zeros(len(p), dtype=torch.float64)
    for drafted, weight in enumerate(q.tolist()):
        if weight:
            rows = [each.expand(N, -1) for each in (p, q)]
            tokens = rule(*rows, torch.full((N,), drafted), uniform).tokens
            shares += weight * tokens.bincount(minlength=len(p)) / N
    return shares


def distributions(n: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(n, 0.7), 2)
    if seed % 3 == 0:
        q[0], p[n - 1] = 0.0, 0.0
    if seed % 5 == 4:
        q = p
    return torch.tensor(p / p.sum()), torch.tensor(q / q.sum())


def from_p(p: Tensor, q: Tensor, drafted: Tensor, uniform: Tensor) -> Accepted:
    """A wrong rule: what replaces a draft comes from p, not from what q left of it."""
    right = accept(p, q, drafted, uniform)
    share = (p / q).gather(1, drafted[:, None])[:, 0].clamp(max=1)
    left = ((uniform - share) / (1 - share)).clamp(0, 1 - 1e-12)
    other = torch.searchsorted(p.cumsum(1), left[:, None], right=True)[:, 0].clamp(
        max=len(p[0]) - 1
    )
    return Accepted(torch.where(right.kept, drafted, other), right.kept)


def without_q(p: Tensor, q: Tensor, drafted: Tensor, uniform: Tensor) -> Accepted:
    """A wrong rule: a draft is kept with probability p, as if it had been a fixed guess."""
    return accept(p, torch.ones_like(q), drafted, uniform)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [2, 3, 7])
def test_what_comes_out_has_the_distribution_of_the_model(n: int, seed: int) -> None:
    p, q = distributions(n, seed)
    # For each draft the numbers that lead to a token are at most two intervals.
    assert (outcome_shares(accept, p, q) - p).abs().max() <= 2 / N


@pytest.mark.parametrize("wrong", [from_p, without_q])
def test_a_wrong_rule_has_another_distribution(wrong: Callable[..., Accepted]) -> None:
    p, q = distributions(7, 1)
    assert (outcome_shares(wrong, p, q) - p).abs().max() > 100 / N


def test_a_draft_is_kept_as_often_as_the_distributions_share() -> None:
    p, q = distributions(5, 1)
    uniform = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    kept = 0.0
    for drafted, weight in enumerate(q.tolist()):
        found = accept(p.expand(N, -1), q.expand(N, -1), torch.full((N,), drafted), uniform).kept
        kept += weight * float(found.double().mean())
    assert kept == pytest.approx(float(torch.minimum(p, q).sum()), abs=1 / N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": torch.ones(2, 4)}, "p has shape"),
        ({"p": torch.ones(3)}, "p has shape"),
        ({"q": -torch.ones(2, 3)}, r"q\[0\] is no distribution, with numbers from -1"),
        ({"q": torch.tensor([[1.0, 1, 0], [0, 0, 0]])}, r"q\[1\] is no .* and a sum of 0; "),
        ({"q": torch.tensor([[1.0, 1, 0], [2, 2, -1]])}, r"q\[1\] is no .* numbers from -1 and"),
        ({"drafted": torch.tensor([0, 3])}, "drafted token 3 is not within"),
        ({"drafted": torch.tensor([0, 2])}, "q is 0 at the drafted token 2"),
        ({"uniform": torch.tensor([0.0, 1.0])}, r"uniform\[1\] is 1.0; give"),
        ({"uniform": torch.tensor([0.0, torch.nan])}, r"uniform\[1\] is nan; give"),
        ({"uniform": torch.tensor([0.0, -0.5])}, r"uniform\[1\] is -0.5; give"),
        ({"drafted": torch.zeros(2)}, "drafted has dtype"),
    ],
)
def test_what_cannot_be_judged_is_named(change: dict[str, Tensor], message: str) -> None:
    given = {
        "p": torch.ones(2, 3),
        "q": torch.tensor([[1.0, 1, 0], [1, 1, 0]]),
        "drafted": torch.tensor([0, 1]),
        "uniform": torch.tensor([0.0, 0.5]),
    }
    with pytest.raises(ValueError, match=message):
        accept(**{**given, **change})


# --- a whole text ----------------------------------------------------------------------------

DRAWS, NEW = 3000, 3


def chi_square() -> float:
    """The p-value of texts of three tokens, drafted by a head, against their exact shares."""
    config = LMConfig(3, 8, 1, 2, 8)
    model = make_model(config, 0.7)
    torch.manual_seed(1)
    head = MultiTokenHead.of(model)
    prompt = torch.tensor([0, 2, 1])
    texts = torch.tensor(list(itertools.product(range(3), repeat=NEW)))
    rows = torch.cat([prompt.expand(len(texts), -1), texts], dim=1)
    logs = model(rows[:, :-1]).logits.detach().log_softmax(-1)[:, len(prompt) - 1 :]
    shares = logs.gather(2, texts[:, :, None]).sum(1).exp()[:, 0]
    assert float(shares.sum()) == pytest.approx(1)
    generator = torch.Generator().manual_seed(5)
    counts = torch.zeros(len(texts))
    for _ in range(DRAWS):
        written = speculative_generate(
            model, prompt, head, max_new_tokens=NEW, n_draft=2, generator=generator
        )
        counts[int(written.tokens @ torch.tensor([9, 3, 1]))] += 1
    return float(stats.chisquare(counts, shares * DRAWS).pvalue)


@pytest.mark.slow
def test_drafts_of_a_head_leave_the_distribution_as_it_is() -> None:
    assert chi_square() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [from_p, without_q])
def test_a_wrong_rule_is_seen_in_the_texts(
    wrong: Callable[..., Accepted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speculative, "accept", wrong)
    assert chi_square() < 1e-6


def test_the_head_is_that_of_v3() -> None:
    config = CONFIGS["heads"]
    model = make_model(config)
    head = MultiTokenHead.of(model)
    tokens = torch.randint(24, (2, 12), generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 11, 32, dtype=torch.float64)
    guessed = head.logits(model, head.read(model, hidden[:, :-1], tokens[:, 1:-1]))
    joined = head.join(
        torch.cat(
            [head.hidden_norm(hidden[:, :-1]), head.token_norm(model.embedding(tokens[:, 1:-1]))],
            dim=-1,
        )
    )
    by_hand = model.head(head.norm(head.layer(joined, model.rotations(10))[0]))
    torch.testing.assert_close(guessed, by_hand)
    expected = nn.functional.cross_entropy(by_hand.flatten(0, 1), tokens[:, 2:].flatten())
    torch.testing.assert_close(head.loss(model, hidden, tokens), expected)


@pytest.mark.parametrize("shape", [(2, 2), (2, 1), (0, 5)])
def test_too_few_tokens_to_guess_one_are_named(shape: tuple[int, int]) -> None:
    model = make_model(CONFIGS["heads"])
    hidden = torch.zeros(shape[0], shape[1] - 1, 32, dtype=torch.float64)
    message = r"^hidden has shape .* and tokens \(\d, \d\); .* S at least 2"
    with pytest.raises(ValueError, match=message):
        MultiTokenHead.of(model).loss(model, hidden, torch.zeros(shape, dtype=torch.int64))


def test_what_the_head_cannot_read_is_named() -> None:
    model = make_model(CONFIGS["heads"])
    head = MultiTokenHead.of(model)
    hidden, tokens = torch.zeros(1, 3, 32, dtype=torch.float64), torch.ones(1, 4).long()
    for wrong in (hidden[:, 1:], hidden[..., 1:], hidden[0], hidden.expand(2, -1, -1)):
        with pytest.raises(ValueError, match=r"hidden has shape .*; pass \[B, S, 32\] and"):
            head.loss(model, wrong, tokens)
        with pytest.raises(ValueError, match=r"hidden has shape .*; pass \[B, S, 32\] and"):
            head.read(model, wrong, tokens[:, 1:])
    for ask in (head.loss, head.read):
        with pytest.raises(ValueError, match="token 99 is not within 0 to 23"):
            ask(model, hidden, 99 * tokens)
    with pytest.raises(ValueError, match="start is -1; give a whole number, at least 0"):
        head.read(model, hidden, tokens[:, 1:], -1)


def test_the_head_drafts_what_it_would_say_with_all_before_it() -> None:
    model = make_model(CONFIGS["heads"])
    head = MultiTokenHead.of(model)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    start = head.start(model, 40)

    class Spy:
        def start(self, model: DecoderLM, room: int) -> Guess:
            def guess(
                text: Tensor, hidden: Tensor, n: int, t: float, source: torch.Generator | None
            ) -> Draft:
                draft = start(text, hidden, n, t, source)
                seen.append((text.clone(), hidden.clone(), draft.tokens))
                return draft

            return guess

    speculative_generate(
        model, torch.tensor([1, 2, 3]), Spy(), max_new_tokens=20, n_draft=2, temperature=0
    )
    assert len(seen[0][2]) == 0  # before the model has read anything
    for text, hidden, drafted in seen[1:-1]:
        with torch.inference_mode():
            x = head.read(model, hidden[None], text[None, 1:])
            assert int(head.logits(model, x)[0, -1].argmax()) == int(drafted[0])
