"""Tasks: what they draw, how they write it out, and that the verifiers miss nothing."""

import builtins
import math
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slingshot.tasks import (
    Opening,
    Problem,
    ReasoningGym,
    ShellGame,
    StateTask,
    Style,
    Task,
    Walk,
    write_traces,
)

GAME = ShellGame()
PROBLEM = Problem("2 5 (1) 2-6 (2) 1-4 (3) 2-3 ?", "6 5")
CAREFUL = "(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $"

seeds = st.integers(0, 2**31)
tasks = st.one_of(
    st.integers(2, 8).flatmap(
        lambda cups: st.builds(ShellGame, st.just(cups), st.integers(1, cups - 1))
    ),
    st.builds(Walk),
)
long_tasks = st.sampled_from([ShellGame(swaps=(2, 12)), ShellGame(5, 1, (3, 7)), Walk((2, 12))])


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(task: Task, n: int, seed: int = 0) -> list[Problem]:
    generator = make_generator(seed)
    return [task.sample(generator) for _ in range(n)]


def played(prompt: str, cups: int) -> str:
    """The shell game with cups that hold something, as one would play it on a table."""
    words = prompt.split()
    balls = words.index("(1)")
    table: list[int | None] = [None] * (cups + 1)
    for ball, cup in enumerate(words[:balls]):
        table[int(cup)] = ball
    for swap in words[balls + 1 : -1 : 2]:
        a, b = map(int, swap.split("-"))
        table[a], table[b] = table[b], table[a]
    return " ".join(str(table.index(ball)) for ball in range(balls))


def walked(prompt: str) -> str:
    return str(int(prompt.split()[0]) + prompt.count(">") - prompt.count("<"))


# --- problems ----------------------------------------------------------------------------------


@given(task=tasks, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_the_answer_is_what_one_gets_by_playing(task: StateTask, seed: int) -> None:
    (problem,) = draw(task, 1, seed)
    expected = (
        played(problem.prompt, task.cups) if isinstance(task, ShellGame) else walked(problem.prompt)
    )
    assert problem.answer == expected


def test_the_example_of_the_module_is_one() -> None:
    assert GAME.trace(PROBLEM, "direct") == "= 6 5 $"
    assert GAME.trace(PROBLEM, "skip") == "(1) 2-6 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $"
    assert GAME.trace(PROBLEM, "careful") == CAREFUL == GAME.trace(PROBLEM)
    slipped = "(1) 2-6 6 5 (2) 1-4 6 1 ! 6 5 (3) 2-3 6 5 = 6 5 $"
    assert GAME.first_wrong_step(PROBLEM, slipped) is None


def test_every_length_start_and_move_is_as_likely() -> None:
    problems = draw(GAME, 3000)
    read = [GAME.read(problem) for problem in problems]
    lengths = Counter(len(moves) for _, moves in read)
    starts = Counter(start for start, _ in read)
    moves = Counter(move for _, moves in read for move in moves)
    for counts, kinds in ((lengths, 12), (starts, 30), (moves, 15)):
        total = sum(counts.values())
        assert len(counts) == kinds
        # Each count is binomial; five of its standard deviations are reached once in 2 million.
        reach = 5 * math.sqrt(total / kinds * (1 - 1 / kinds))
        assert all(abs(count - total / kinds) < reach for count in counts.values())


def test_a_generator_fixes_the_problems_and_nothing_else() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    styles: dict[Style, float] = {"direct": 1, "careful": 1}
    written = [
        write_traces(GAME, 20, styles, slips=0.3, generator=make_generator(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(torch.rand(1), expected)
    assert written[0] == written[1] != written[2]


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_order_of_moves_matters_for_cups_and_not_for_a_walk(seed: int) -> None:
    (problem,) = draw(Walk(), 1, seed)
    start, moves = Walk().read(problem)
    backward = " ".join(f"({n}) {move}" for n, move in enumerate(reversed(moves), 1))
    assert walked(f"{start[0]} {backward} ?") == problem.answer
    assert played("1 (1) 1-2 (2) 2-3 ?", 6) != played("1 (1) 2-3 (2) 1-2 ?", 6)


def test_the_longest_walk_with_a_slip_at_every_step_still_has_words() -> None:
    task = Walk((12, 12))
    for start, move, slip in ((0, "<<", -1), (9, ">>", 1)):
        state = (start,)
        for _ in range(12):
            state = (task.apply(state, move)[0] + slip,)
        assert task.decode(task.encode(str(state[0]))) == str(state[0])


# --- traces ------------------------------------------------------------------------------------


@given(task=tasks, seed=seeds, style=st.sampled_from(["skip", "careful"]))
@settings(max_examples=100, deadline=None)
def test_a_trace_without_slips_passes_both_verifiers(
    task: StateTask, seed: int, style: Style
) -> None:
    (problem,) = draw(task, 1, seed)
    text = task.trace(problem, style)
    assert task.verify(problem, text)
    assert task.first_wrong_step(problem, text) is None
    _, moves = task.read(problem)
    states = len(moves) if style == "careful" else math.ceil(len(moves) / 2)
    width = len(problem.answer.split())
    assert len(text.split()) == 2 * len(moves) + (states + 1) * width + 2


@given(task=tasks, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_a_direct_answer_is_right_and_shows_nothing(task: StateTask, seed: int) -> None:
    (problem,) = draw(task, 1, seed)
    text = task.trace(problem, "direct", slips=1.0, generator=make_generator(seed))
    assert task.verify(problem, text)
    assert task.first_wrong_step(problem, text) == 1


@given(task=tasks, seed=seeds, style=st.sampled_from(["skip", "careful"]))
@settings(max_examples=100, deadline=None)
def test_slips_that_are_noticed_do_no_harm(task: StateTask, seed: int, style: Style) -> None:
    (problem,) = draw(task, 1, seed)
    generator = make_generator(seed)
    text = task.trace(problem, style, slips=1.0, noticed=1.0, generator=generator)
    states = text.split().count("!")
    _, moves = task.read(problem)
    assert states == (len(moves) if style == "careful" else math.ceil(len(moves) / 2))
    assert task.verify(problem, text)
    assert task.first_wrong_step(problem, text) is None


@given(task=tasks, seed=seeds, style=st.sampled_from(["skip", "careful"]))
@settings(max_examples=100, deadline=None)
def test_slips_that_are_believed_are_found_where_they_happen(
    task: StateTask, seed: int, style: Style
) -> None:
    (problem,) = draw(task, 1, seed)
    generator = make_generator(seed)
    text = task.trace(problem, style, slips=1.0, noticed=0.0, generator=generator)
    assert "!" not in text
    _, moves = task.read(problem)
    assert task.first_wrong_step(problem, text) == min(1 if style == "careful" else 2, len(moves))


def test_slips_come_as_often_as_asked_and_are_noticed_as_often() -> None:
    traces = write_traces(
        ShellGame(swaps=(10, 10)),
        300,
        {"careful": 1.0},
        slips=0.2,
        noticed=0.25,
        generator=make_generator(),
    )
    noticed = sum(trace.text.count("!") for trace in traces)
    # Of 3000 states 5% are noticed slips; four standard deviations of that count.
    assert noticed == pytest.approx(150, abs=4 * math.sqrt(3000 * 0.05 * 0.95))
    sound = [GAME.first_wrong_step(*trace) is None for trace in traces]
    share = 0.85**10  # no slip that is believed in ten states
    assert sum(sound) == pytest.approx(300 * share, abs=4 * math.sqrt(300 * share * (1 - share)))


def test_a_believed_slip_is_followed_faithfully() -> None:
    generator = make_generator(5)
    problem = Problem("1 2 (1) 3-4 (2) 3-4 (3) 3-4 ?", "1 2")
    text = GAME.trace(problem, slips=1.0, noticed=0.0, generator=generator)
    words = text.split()
    first, last = words[2:4], words[-3:-1]
    assert first != ["1", "2"]
    assert len(set(first) & {"1", "2"}) == 1  # one ball slipped, to a free cup
    assert words[-6:-4] == last  # the answer is the last state that was written


@pytest.mark.parametrize("task", [GAME, ShellGame(3, 2), Walk()])
def test_a_mistaken_state_is_another_one_that_could_be(task: StateTask) -> None:
    generator = make_generator()
    for _ in range(100):
        state = task.start(generator)
        wrong = task.mistaken(state, generator)
        assert sum(a != b for a, b in zip(state, wrong, strict=True)) == 1
        assert len(set(wrong)) == len(wrong)
        assert set(wrong) <= set(task.states())


def test_styles_come_as_often_as_their_weights() -> None:
    styles: dict[Style, float] = {"direct": 2.0, "skip": 1.0, "careful": 1.0}
    traces = write_traces(ShellGame(swaps=(2, 12)), 1000, styles, generator=make_generator())
    direct = sum(trace.text.startswith("=") for trace in traces)
    skip = sum(trace.text.split()[2:3] == ["(2)"] for trace in traces)
    assert direct == pytest.approx(500, abs=4 * math.sqrt(250))
    assert skip == pytest.approx(250, abs=4 * math.sqrt(1000 * 3 / 16))
    assert write_traces(GAME, 0, {"direct": 1.0}, generator=make_generator()) == []


# --- verifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (CAREFUL, "6 5"),
        ("= 6 5 $", "6 5"),
        ("= 1 1 = 6 5 $", "6 5"),
        ("= $", ""),
        ("= 6 5", None),  # it has not ended
        ("= 6 5 $ 1", None),
        ("6 5 $", None),
        ("", None),
        ("$", None),
    ],
)
def test_an_answer_stands_between_the_last_equals_sign_and_the_end(
    text: str, answer: str | None
) -> None:
    assert GAME.extract(text) == answer
    assert GAME.verify(PROBLEM, text) == (answer == "6 5")


@pytest.mark.parametrize("text", ["= 5 6 $", "= 6 $", "= 6 5 5 $", "= 6 5 ! $", "= 66 5 $"])
def test_what_is_nearly_the_answer_is_wrong(text: str) -> None:
    assert not GAME.verify(PROBLEM, text)
    assert GAME.first_wrong_step(PROBLEM, text) == 1


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (CAREFUL, None),
        ("(1) 2-6 6 5 (2) 1-4 (3) 2-3 6 5 = 6 5 $", None),  # two swaps at a time, later
        ("(1) 2-6 1 1 ! 2 2 ! 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $", None),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 5 6 $", 4),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5", 4),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 6 5 $", 4),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $ $", 4),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 6 5 (4) 1-2 6 5 = 6 5 $", 4),
        ("(1) 2-6 6 5 (2) 1-4 6 5 (3) 2-3 = 6 5 $", 3),  # no state
        ("(1) 2-6 6 5 (2) 1-4 6 5 = 6 5 $", 3),  # a swap is left out
        ("(1) 2-6 6 5 (3) 2-3 6 5 = 6 5 $", 2),
        ("(1) 2-6 6 5 (2) 1-5 6 5 (3) 2-3 6 5 = 6 5 $", 2),  # not the swap of the prompt
        ("(1) 2-6 6 5 (1) 1-4 6 5 (3) 2-3 6 5 = 6 5 $", 2),
        ("(1) 2-6 6 5 (2) 1-4 6 4 (3) 2-3 6 5 = 6 5 $", 2),  # slipped, and right again by chance
        ("(1) 2-6 6 5 (2) 1-4 6 5 ! 6 4 (3) 2-3 6 5 = 6 5 $", 2),  # a right state taken back
        ("(1) 2-6 6 5 (2) 1-4 6 5 !", 2),
        ("(1) 2-6 6 5 !", 1),
        ("(1) 2-6 5 6 (2) 1-4 6 5 (3) 2-3 6 5 = 6 5 $", 1),  # the other way round
        ("(1) 2-6 (2) 1-4 (3) 2-3 6 5 = 6 5 $", 2),  # three at a time
        ("(1) 2-6 6", 1),
        ("(1)", 1),
        ("", 1),
        ("= 6 5 $", 1),
    ],
)
def test_the_first_wrong_step_is_found(text: str, step: int | None) -> None:
    assert GAME.first_wrong_step(PROBLEM, text) == step


@given(task=long_tasks, seed=seeds, data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_word_that_is_changed_is_found_at_its_step(
    task: StateTask, seed: int, data: st.DataObject
) -> None:
    (problem,) = draw(task, 1, seed)
    words = task.trace(problem, "careful").split()
    place = data.draw(st.integers(0, len(words) - 1))
    word = data.draw(st.sampled_from(task.words))
    assume(word != words[place])
    words[place] = word
    per_step = 2 + len(problem.answer.split())
    step, within = divmod(place, per_step)
    n_moves = len(task.read(problem)[1])
    expected = min(step, n_moves) + 1
    if word == "!" and within == 0 and 0 < step < n_moves:
        expected -= 1  # it takes back the state before it, and a move is no state
    assert task.first_wrong_step(problem, " ".join(words)) == expected


@given(task=long_tasks, seed=seeds, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_text_that_breaks_off_is_never_accepted(
    task: StateTask, seed: int, data: st.DataObject
) -> None:
    (problem,) = draw(task, 1, seed)
    words = task.trace(problem, data.draw(st.sampled_from(["skip", "careful"]))).split()
    left = words[: data.draw(st.integers(0, len(words) - 1))]
    assert not task.verify(problem, " ".join(left))
    assert task.first_wrong_step(problem, " ".join(left)) is not None


def test_a_guess_is_right_once_in_thirty() -> None:
    answers = {problem.answer for problem in draw(ShellGame(swaps=(12, 12)), 500)}
    assert Fraction(1, len(answers)) == Fraction(1, 30)


# --- tokens ------------------------------------------------------------------------------------


@given(task=tasks, seed=seeds, style=st.sampled_from(["direct", "skip", "careful"]))
@settings(max_examples=100, deadline=None)
def test_tokens_are_read_back_and_end_with_the_end(
    task: StateTask, seed: int, style: Style
) -> None:
    (problem,) = draw(task, 1, seed)
    text = task.trace(problem, style, slips=0.5, generator=make_generator(seed))
    for each in (problem.prompt, text):
        tokens = task.encode(each)
        assert tokens.dtype == torch.int64
        assert tokens.shape == (len(each.split()),)
        assert 0 <= tokens.min() <= tokens.max() < task.vocabulary_size
        assert task.decode(tokens) == each
    assert (tokens == task.end).nonzero().flatten().tolist() == [len(tokens) - 1]


def test_no_two_words_are_the_same_and_none_has_a_space() -> None:
    for task in (GAME, ShellGame(12, 3, longest=30), Walk()):
        assert len(set(task.words)) == task.vocabulary_size
        assert not any(len(word.split()) != 1 for word in task.words)
    assert GAME.vocabulary_size == 37
    assert task.decode(torch.zeros(0, dtype=torch.int64)) == ""


@pytest.mark.parametrize(
    ("task", "one"),
    [(GAME, replace(GAME, swaps=(10, 10))), (Walk(), Walk((3, 3)))],
)
def test_tokens_do_not_depend_on_the_lengths_that_are_drawn(
    task: StateTask, one: StateTask
) -> None:
    assert task.words == one.words
    assert len(one.read(draw(one, 1)[0])[1]) == one.lengths[0]


# --- what cannot be meant ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cups": 1}, "cups is 1; give at least 2, so that there is a swap"),
        ({"balls": 6}, "balls is 6; give 1 to 5, one cup is free"),
        ({"balls": 0}, "balls is 0; give 1 to 5, one cup is free"),
        ({"swaps": (0, 3)}, r"swaps is \(0, 3\); give the fewest and the most, such as \(1, 12\)"),
        ({"swaps": (4, 3)}, r"swaps is \(4, 3\); give the fewest and the most"),
        ({"swaps": (1, 20)}, r"swaps is \(1, 20\) but longest is 12; give longest=20"),
    ],
)
def test_numbers_that_make_no_game_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShellGame(**settings)


def test_lengths_that_make_no_walk_are_named() -> None:
    with pytest.raises(ValueError, match=r"moves is \(0, 3\); give the fewest and the most"):
        Walk((0, 3))
    with pytest.raises(ValueError, match=r"moves is \(1, 13\) but longest is 12; give longest=13"):
        Walk((1, 13))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "hasty"}, "style 'hasty' is unknown; use direct, skip or careful"),
        ({"slips": 8.0}, "slips is 8.0 and noticed 0.5; give shares from 0 to 1"),
        ({"noticed": -1.0}, "slips is 0.0 and noticed -1.0; give shares from 0 to 1"),
        ({"slips": 0.1}, "slips is 0.1 but there is no generator; pass one"),
    ],
)
def test_ways_of_writing_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GAME.trace(PROBLEM, **options)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "2 5 ?",
        "2 5 (1) 2-6",
        "2 5 (1) 2-6 !",
        "2 5 (1) 2-6 (3) 1-4 ?",
        "2 5 (1) 6-2 ?",
        "2 5 (1) > ?",
        "2 5 (1) 2-6 ? ?",
        "2 2 (1) 2-6 ?",
        "2 7 (1) 2-6 ?",
        "0 5 (1) 2-6 ?",
        "02 5 (1) 2-6 ?",
        "² 5 (1) 2-6 ?",
        "2 (1) 2-6 ?",
        "2 5 3 (1) 2-6 ?",
        "(1) 2-6 ?",
        "How many r are in strawberry?",
    ],
)
def test_prompts_of_another_task_are_named(prompt: str) -> None:
    for read in (GAME.read, GAME.trace):
        with pytest.raises(ValueError, match=r"is not one of this task; it is written like '. . "):
            read(Problem(prompt, "6 5"))


@pytest.mark.parametrize("start", ["10", "-1", "2 5", "", "x"])
def test_walks_begin_at_a_place_from_0_to_9(start: str) -> None:
    with pytest.raises(ValueError, match="is not one of this task"):
        Walk().read(Problem(f"{start} (1) > ?".strip(), "0"))


@pytest.mark.parametrize("weights", [{}, {"direct": 0.0}, {"direct": 1.0, "skip": -1.0}])
def test_weights_that_choose_nothing_are_named(weights: dict[Style, float]) -> None:
    with pytest.raises(ValueError, match="give weights from 0 on, one of them above"):
        write_traces(GAME, 3, weights, generator=make_generator())


def test_words_and_tokens_that_are_not_known_are_named() -> None:
    with pytest.raises(ValueError, match=r"'7' is no word of this task; it knows . . = ! 1 2 3"):
        GAME.encode("2 7")
    with pytest.raises(ValueError, match="token 37 is not within 0 to 36; decode with the task"):
        GAME.decode(torch.tensor([1, 37]))
    with pytest.raises(ValueError, match="token -1 is not within 0 to 36"):
        GAME.decode(torch.tensor([-1]))


# --- reasoning-gym -----------------------------------------------------------------------------


class Sums:
    """A stand-in for one generator of reasoning-gym, with partial scores as the real ones have."""

    def __init__(self, seed: int, size: int, largest: int = 9) -> None:
        assert size == 1
        self.number = seed % largest

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "question": f"{self.number} + 1 = ?",
            "answer": str(self.number + 1),
            "metadata": {},
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        if answer is None:
            return 0.0
        return 1.0 if answer == entry["answer"] else 0.5 * (entry["answer"] in answer)


@pytest.fixture
def gym(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("reasoning_gym")
    module.factory = SimpleNamespace(DATASETS={"sums": Sums})
    module.create_dataset = lambda name, **options: module.factory.DATASETS[name](**options)
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)


@pytest.mark.usefixtures("gym")
def test_a_generator_of_others_is_a_task() -> None:
    task: Task = ReasoningGym("sums", largest=5)
    problems = draw(task, 40)
    assert {problem.prompt for problem in problems} == {f"{n} + 1 = ?" for n in range(5)}
    for problem in problems:
        text = task.trace(problem, "direct")
        assert text == f"{problem.answer}\x03"
        assert task.verify(problem, text)
        assert not task.verify(problem, problem.answer)  # it has not ended
        assert not task.verify(problem, f"{problem.answer} or 7\x03")
        assert not task.verify(problem, f"{text}{text}")
        tokens = task.encode(text)
        assert task.decode(tokens) == text
        assert tokens[-1] == task.end < task.vocabulary_size
    assert task.decode(torch.tensor([226, 130, 172, 200])) == "€\ufffd"


@pytest.mark.usefixtures("gym")
def test_scores_of_others_are_passed_on() -> None:
    task = ReasoningGym("sums")
    (problem,) = draw(task, 1)
    assert task.score(problem, f" {problem.answer}\n\x03") == 1.0
    assert task.score(problem, f"{problem.answer} or 7\x03") == 0.5
    assert task.score(problem, problem.answer) == 0.0


@pytest.mark.usefixtures("gym")
def test_what_others_do_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="reasoning-gym has no generator 'sum'; it has sums"):
        ReasoningGym("sum")
    task = ReasoningGym("sums")
    (problem,) = draw(task, 1)
    with pytest.raises(ValueError, match=r"style is 'careful' and slips is 0\.0, but there are no"):
        task.trace(problem, "careful")
    with pytest.raises(ValueError, match="sums has no answer of its own for '1'"):
        task.trace(Problem("1", ""))
    with pytest.raises(ValueError, match="the problem has no entry to score against; draw it with"):
        task.verify(Problem("1", "2"), "2\x03")


def test_without_reasoning_gym_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(builtins.ImportError) as caught:
        ReasoningGym("sums")
    assert caught.value.__notes__ == ["install it with: pip install reasoning-gym==0.1.25"]


@pytest.mark.parametrize("name", ["chain_sum", "countdown", "maze"])
def test_the_real_generators_accept_their_own_answers(name: str) -> None:
    pytest.importorskip("reasoning_gym", reason="optional: pip install reasoning-gym==0.1.25")
    task = ReasoningGym(name)
    problems = draw(task, 5)
    assert problems == draw(task, 5) != draw(task, 5, seed=1)
    for problem in problems:
        assert task.decode(task.encode(problem.prompt)) == problem.prompt
        assert task.verify(problem, task.trace(problem))
        assert not task.verify(problem, "no\x03")


def test_a_real_generator_accepts_answers_that_differ_from_its_own() -> None:
    pytest.importorskip("reasoning_gym", reason="optional: pip install reasoning-gym==0.1.25")
    task = ReasoningGym("countdown")
    (problem,) = draw(task, 1)
    assert task.verify(problem, f"({problem.answer}) + 0 * 1\x03") is False  # 0 and 1 are not given
    assert task.verify(problem, f"({problem.answer})\x03")


# --- openings and styles -----------------------------------------------------------------------


def test_an_opening_stops_after_the_state_of_its_step() -> None:
    assert GAME.opening(PROBLEM, 2) == Opening("(1) 2-6 6 5 (2) 1-4 6 5", "6 5")


@given(task=long_tasks, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_an_opening_begins_the_careful_trace(task: StateTask, seed: int) -> None:
    (problem,) = draw(task, 1, seed)
    _, moves = task.read(problem)
    for step in range(1, len(moves) + 1):
        opening = task.opening(problem, step)
        assert task.trace(problem).startswith(f"{opening.text} ")
        assert opening.answer == problem.answer


@given(task=long_tasks, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_a_wrong_opening_is_right_up_to_its_last_state(task: StateTask, seed: int) -> None:
    (problem,) = draw(task, 1, seed)
    start, moves = task.read(problem)
    for step in range(1, len(moves) + 1):
        opening = task.opening(problem, step, generator=make_generator(seed))
        right = task.opening(problem, step).text.split()
        words = opening.text.split()
        assert words[: -len(start)] == right[: -len(start)]
        assert words[-len(start) :] != right[-len(start) :]
        assert task.first_wrong_step(problem, opening.text) == step


@given(task=long_tasks, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_answer_of_a_wrong_opening_is_that_of_whoever_goes_on_from_it(
    task: StateTask, seed: int
) -> None:
    (problem,) = draw(task, 1, seed)
    start, moves = task.read(problem)
    step = 1 + seed % len(moves)
    opening = task.opening(problem, step, generator=make_generator(seed))
    state = " ".join(opening.text.split()[-len(start) :])
    rest = " ".join(f"({n}) {move}" for n, move in enumerate(moves[step:], 1))
    expected = state
    if rest:
        prompt = f"{state} {rest} ?"
        expected = played(prompt, task.cups) if isinstance(task, ShellGame) else walked(prompt)
    assert opening.answer == expected != problem.answer


@pytest.mark.parametrize("step", [0, 4, -1])
def test_an_opening_needs_a_step_of_the_problem(step: int) -> None:
    with pytest.raises(ValueError, match=rf"^step is {step}; the problem has steps 1 to 3$"):
        GAME.opening(PROBLEM, step)


@given(task=long_tasks, style=st.sampled_from(["direct", "skip", "careful"]), seed=seeds)
@settings(max_examples=100, deadline=None)
def test_the_style_of_a_trace_is_the_one_it_was_written_in(
    task: StateTask, style: Style, seed: int
) -> None:
    (problem,) = draw(task, 1, seed)
    text = task.trace(problem, style, slips=0.3, generator=make_generator(seed))
    assert task.style(text) == style


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("", "direct"),
        ("6 5 6 5", "direct"),
        ("6 5 = (1) 2-6 6 5 $", "direct"),
        ("(1) 2-6 (2) 1-4", "skip"),
        ("(1) 2-6 (2) 1-4 6 5 (3) 2-3 6 5 (4) 1-2", "skip"),
        ("(1) 2-6", "careful"),
        ("(1) 2-6 ! 3 (2) 1-4 = 6 5 $", "careful"),
    ],
)
def test_a_text_that_goes_astray_has_a_style_too(text: str, style: Style) -> None:
    assert GAME.style(text) == style
