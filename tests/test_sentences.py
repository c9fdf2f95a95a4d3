"""The shell game in sentences: said, read back, and judged as the game judges."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from slingshot.sentences import END_OF_TEXT, SpokenGame
from slingshot.tasks import Problem, ShellGame, Walk, write_traces

PROBLEM = Problem("2 5 (1) 2-6 (2) 1-4 (3) 2-3 ?", "6 5")
PROMPT = (
    "There are 6 cups in a row, A to F, with balls under B and E. "
    "Swap B and F, A and D, B and C. Where are the balls?"
)
CAREFUL = (
    " Swap B and F: F and E. Swap A and D: F and E. Swap B and C: F and E."
    " The balls are under F and E.<|im_end|>"
)


def byte_tokenizer() -> Tokenizer:
    """Each byte is a token, and so is the end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    return tokenizer


@pytest.fixture(scope="module")
def spoken() -> SpokenGame:
    return SpokenGame(byte_tokenizer())


def test_a_problem_and_its_traces_by_hand(spoken: SpokenGame) -> None:
    said = spoken.say(PROBLEM)
    assert said == Problem(PROMPT, "F and E")
    assert spoken.unsay(said) == PROBLEM
    assert spoken.trace(said) == CAREFUL
    assert spoken.trace(said, "direct") == " The balls are under F and E.<|im_end|>"
    assert spoken.trace(said, "skip") == (
        " Swap B and F, A and D: F and E. Swap B and C: F and E."
        " The balls are under F and E.<|im_end|>"
    )
    slip = "(1) 2-6 6 5 (2) 1-4 6 1 ! 6 5 (3) 2-3 6 5 = 6 5 $"
    assert " Swap A and D: F and A. No: F and E. Swap" in spoken.say_text(slip)


@pytest.mark.parametrize("balls", [1, 2, 3])
def test_what_is_said_is_read_back_and_judged_alike(balls: int) -> None:
    game = ShellGame(balls=balls)
    spoken = SpokenGame(byte_tokenizer(), game)
    generator = torch.Generator().manual_seed(balls)
    styles = {"direct": 1.0, "skip": 1.0, "careful": 1.0}
    verdicts = set()
    for problem, text in write_traces(game, 200, styles, slips=0.3, generator=generator):  # type: ignore[arg-type]
        said, told = spoken.say(problem), spoken.say_text(text)
        assert spoken.unsay(said) == problem
        assert spoken.unsay_text(told) == text
        assert spoken.verify(said, told) == game.verify(problem, text)
        assert spoken.first_wrong_step(said, told) == game.first_wrong_step(problem, text)
        assert spoken.verify_steps(said, told) == game.verify_steps(problem, text)
        assert spoken.decode(spoken.encode(told)) == told
        verdicts.add((spoken.verify(said, told), spoken.verify_steps(said, told)))
    assert verdicts == {(True, True), (True, False), (False, False)}


def test_a_problem_is_drawn_as_the_game_draws_it(spoken: SpokenGame) -> None:
    a, b = (torch.Generator().manual_seed(4) for _ in range(2))
    three = spoken.with_swaps(3, 3)
    for _ in range(5):
        problem = three.sample(a)
        assert three.unsay(problem) == replace(ShellGame(), swaps=(3, 3)).sample(b)
    assert spoken.vocabulary_size == 257
    assert spoken.decode(torch.tensor([spoken.end])) == END_OF_TEXT


def test_openings_are_those_of_the_game(spoken: SpokenGame) -> None:
    said = spoken.say(PROBLEM)
    right = spoken.opening(said, 2)
    assert right.text == " Swap B and F: F and E. Swap A and D: F and E."
    assert right.answer == said.answer
    wrong = spoken.opening(said, 2, generator=torch.Generator().manual_seed(0))
    assert wrong.text != right.text
    assert wrong.answer != said.answer
    assert spoken.unsay_text(wrong.text) is not None


@pytest.mark.parametrize(
    ("text", "answer", "first_wrong"),
    [
        (CAREFUL, "F and E", None),
        (CAREFUL.removesuffix(END_OF_TEXT), "F and E", 4),
        (CAREFUL.replace("F and E.<", "E and F.<"), "E and F", 4),
        ("I think. The balls are under F and E. Good!", "F and E", 1),
        (" Swap B and F: F and E. Swap A", None, 1),
        (CAREFUL.replace("Swap A and D", "Swap A and C"), "F and E", 2),
        (" The balls are under F and E.<|im_end|>", "F and E", 1),
        ("", None, 1),
        (" " + CAREFUL, "F and E", 1),
    ],
)
def test_answers_and_steps_of_texts_by_hand(
    text: str, answer: str | None, first_wrong: int | None, spoken: SpokenGame
) -> None:
    said = spoken.say(PROBLEM)
    assert spoken.extract(text) == answer
    assert spoken.verify(said, text) == (answer == "F and E")
    assert spoken.first_wrong_step(said, text) == first_wrong


@pytest.mark.parametrize(
    "text",
    [
        "(2) 2-6 6 5",
        "(1) 2-6",
        "(1) 2-6 6",
        "6 5 = 6 5 $",
        "= 6 5 $ $",
        "(1) 2-6 6 5 = 6 7 $",
        "(1) 2-6 6 5 hello",
    ],
)
def test_what_has_no_sentence_is_refused(text: str, spoken: SpokenGame) -> None:
    with pytest.raises(ValueError, match="has no sentence"):
        spoken.say_text(text)


def test_what_is_not_of_this_game_is_refused(spoken: SpokenGame) -> None:
    walk = Walk().sample(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="is not one of this"):
        spoken.say(walk)
    for prompt in ("Hello", PROMPT.replace("6", "7"), PROMPT + " Now.", PROMPT[:-1]):
        with pytest.raises(ValueError, match="is not one of this game; it is written like 'There"):
            spoken.unsay(Problem(prompt, "A and B"))
    with pytest.raises(ValueError, match="cups is 27"):
        SpokenGame(byte_tokenizer(), ShellGame(cups=27))
    with pytest.raises(ValueError, match="has no <"):
        SpokenGame(Tokenizer(models.BPE()))


@pytest.mark.parametrize(
    "change",
    [
        ("B and E.", "B and B."),
        ("B and E.", "B and G."),
        ("B and E.", "B."),
        ("balls under B and E.", "ball under B and E."),
        ("B and E.", "B and E and C."),
        ("B and F", "B and B"),
        ("B and F", "F and B"),
        ("B and F", "B and G"),
        ("B and F", "B"),
        ("A to F", "A to G"),
        ("are the balls", "is the ball"),
    ],
)
def test_balls_and_swaps_that_cannot_be_are_refused(
    change: tuple[str, str], spoken: SpokenGame
) -> None:
    prompt = PROMPT.replace(*change)
    assert prompt != PROMPT
    problem = Problem(prompt, "A and B")
    for read in (spoken.unsay, spoken.trace, partial(spoken.first_wrong_step, text="")):
        with pytest.raises(ValueError, match="is not one of this game"):
            read(problem)


@pytest.mark.parametrize("move", ["9-1", "27-28", "0-1", "1", "1-2-3", "foo", "1-1", "2-1"])
def test_a_move_that_is_none_has_no_sentence(move: str, spoken: SpokenGame) -> None:
    """Cups were made up: 27 became the letter behind Z."""
    with pytest.raises(ValueError, match="has no sentence"):
        spoken.say_text(f"(1) {move} 1 2")
