"""The shapes in signatures are checked: inner functions before they run, doors afterwards."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import shapes
from shapes import ShapeError
from slingshot import moe, require
from slingshot.completions import CompletionBatch
from slingshot.moe import TopKRouter, routing
from slingshot.quant import Quantized, quantize
from slingshot.quant.blocks import INT8
from slingshot.tensors import check_shapes

LIBRARY = Path(__file__).resolve().parent.parent / "src/slingshot"

# Functions that take a tensor of any shape or type: guards, and what only passes it on.
ANY_SHAPE = {
    "tensors",
    "layers.draw",
    "lm.check_prompts",
    "parallel.place_experts",  # a load may also be a list
    "parallel.Placement.rank_load",
    "parallel.Placement.imbalance",
    "attention.LatentAttention.from_deepseek",  # weights by name
    "quant.blocks.version_of",
    "quant.blocks.check_finite",
    "quant.blocks.check_dense",
    "quant.blocks.block_sizes",
    "quant.matmul.check_columns",
    "quant.linear.check_bias",
    "quant.linear.check_features",
    "quant.linear.counted",
}


def public_functions(body: list[ast.stmt], name: str) -> dict[str, ast.FunctionDef]:
    """By name, the functions and methods without an underscore."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if node.name.startswith("_") and node.name != "__init__":
                continue
            if isinstance(node, ast.FunctionDef):
                found[f"{name}.{node.name}"] = node
            else:
                found.update(public_functions(node.body, f"{name}.{node.name}"))
    return found


def takes_any_tensor(function: ast.FunctionDef) -> bool:
    """Whether a parameter, or what is returned, is a ``Tensor`` without a shape."""
    arguments = function.args
    every = [*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    hints = [function.returns, *(each.annotation for each in every if each is not None)]
    nodes = [node for hint in hints if hint is not None for node in ast.walk(hint)]
    shaped = {
        id(part)
        for node in nodes
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)
        for part in node.slice.elts[:1]
        if isinstance(node.slice.elts[-1], ast.Constant)
    }
    return any(
        isinstance(node, ast.Name) and node.id == "Tensor" and id(node) not in shaped
        for node in nodes
    )


def test_every_public_function_says_its_shapes() -> None:
    unsaid = set()
    for path in LIBRARY.rglob("*.py"):
        module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        body = ast.parse(path.read_text("utf-8")).body
        functions = public_functions(body, module)
        unsaid |= {name for name, each in functions.items() if takes_any_tensor(each)}
    named = {name for name in unsaid if name in ANY_SHAPE or name.split(".")[0] in ANY_SHAPE}
    assert unsaid - named == set(), "give these shapes"
    assert ANY_SHAPE - {"tensors"} - named == set(), "these have shapes, or are gone"


@pytest.mark.parametrize(
    ("hint", "is_bare"),
    [
        ("x: Tensor", True),
        ("x: Tensor | None = None", True),
        ("x: list[Tensor]", True),
        ('x: Float[Tensor, "T d"]', False),
        ('x: Float[Tensor, ""] | None', False),
        ('x: dict[str, Float[Tensor, "T"]]', False),
        ('*, x: tuple[Tensor, Float[Tensor, "T"]]', True),
        ("*x: Tensor", True),
    ],
)
def test_a_tensor_without_a_shape_is_found(hint: str, is_bare: bool) -> None:
    (function,) = ast.parse(f"def f({hint}): ...").body
    assert isinstance(function, ast.FunctionDef)
    assert takes_any_tensor(function) == is_bare


# --- what is refused ---------------------------------------------------------------------------


def test_an_inner_function_is_checked_before_it_runs() -> None:
    scores, experts = torch.rand(3, 4), torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"routing\._weights: experts is not .*\*T k.*\[2, 2\]"):
        routing._weights(scores, experts, True, 1.0)
    with pytest.raises(ShapeError, match=r"experts is not .*Int64"):
        routing._weights(scores, experts[:1].int().repeat(3, 1), True, 1.0)


def test_a_door_refuses_by_itself_and_is_checked_afterwards() -> None:
    with pytest.raises(ValueError, match=r"make it \[tokens, 4\]"):
        TopKRouter(4, 8, 2)(torch.zeros(2, 3, 4))


def test_what_a_door_lets_through_must_be_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "real", lambda name, values: values)
    with pytest.raises(ShapeError, match=r"_scores: logits is not .*Float"):
        moe.expert_scores(torch.ones(2, 3, dtype=torch.int64))


def test_what_is_returned_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_by_group", lambda values, n: values.view(1, n, -1))
    with pytest.raises(ShapeError, match=r"group_scores: return is not .*\*T G"):
        moe.group_scores(torch.rand(3, 4), 2)


def test_the_fields_of_a_record_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"CompletionBatch: learned is not .*B S-1"):
        CompletionBatch(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5) > 0)
    q = quantize(torch.ones(2, 4), INT8)
    with pytest.raises(ShapeError, match="Quantized: scale is not"):
        Quantized(q.values, q.scale[0], q.block, q.fmt)


def test_a_size_may_be_named_before_it_is_known() -> None:
    """``gate_up [E, 2 * h, d]`` comes before ``down [E, d, h]``, which says what h is."""
    experts = moe.Experts(2, 4, 3)
    x, chosen = torch.rand(5, 4), torch.zeros(5, 1, dtype=torch.int64)
    experts(x, chosen, torch.ones(5, 1))
    experts.gate_up = nn.Parameter(torch.rand(2, 8, 4))
    with pytest.raises(ShapeError, match=r"is not .*2\*h"):
        experts(x, chosen, torch.ones(5, 1))


# --- the refusals that doors share -------------------------------------------------------------


@pytest.mark.parametrize(
    ("remedy", "shapes_given", "message"),
    [
        ("pass [T, d] and [E, d]", {"x": (2, 3), "weight": (4, 3)}, None),
        (
            "pass [T, d] and [E, d]",
            {"x": (2, 3), "weight": (4, 5)},
            "x has shape (2, 3) and weight (4, 5); pass [T, d] and [E, d]",
        ),
        ("pass [T, 3]", {"x": (2, 4)}, "x has shape (2, 4); pass [T, 3]"),
        ("pass [T, 3]", {"x": (0, 3)}, None),
        ("pass [N]", {"x": ()}, "x has shape (); pass [N]"),
        ("pass [N]", {"x": (1, 1)}, "x has shape (1, 1); pass [N]"),
        (
            "pass [N, V] twice and [N] twice",
            {"p": (2, 3), "q": (2, 3), "drafted": (2,), "uniform": (3,)},
            "p has shape (2, 3), q (2, 3), drafted (2,) and uniform (3,); "
            "pass [N, V] twice and [N] twice",
        ),
        ("pass [R, T] and [R, T]", {"mask": (2, 3), "log_old": None}, None),
        (
            "pass [R, T] and [R]",
            {"mask": (2,), "log_old": None},
            "mask has shape (2,) and log_old None; pass [R, T] and [R]",
        ),
    ],
)
def test_a_remedy_says_and_checks_the_shapes(
    remedy: str, shapes_given: dict[str, tuple[int, ...] | None], message: str | None
) -> None:
    given = {
        name: None if shape is None else torch.zeros(shape) for name, shape in shapes_given.items()
    }
    if message is None:
        check_shapes(remedy, **given)  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_shapes(remedy, **given)  # type: ignore[arg-type]


def test_a_shape_without_an_element_is_refused_where_one_is_needed() -> None:
    check_shapes("pass [T, E]", x=torch.zeros(1, 1), empty=False)
    with pytest.raises(ValueError, match=r"x has shape \(0, 2\); pass \[T, E\]"):
        check_shapes("pass [T, E]", x=torch.zeros(0, 2), empty=False)


def test_a_choice_and_the_fields_of_a_configuration() -> None:
    require.one_of(("a", "b"), kind="b")
    with pytest.raises(ValueError, match=r"^kind 'd' is unknown; use a, b or c$"):
        require.one_of(("a", "b", "c"), kind="d")
    config = SimpleNamespace(steps=1, clip=0.5, final=1.0, limit=None)
    names = {"at_least_1": ("steps", "limit"), "above_0": ("clip", "limit"), "shares": ("final",)}
    require.fields(config, **names)
    for field, value in (("steps", 0), ("clip", 0.0), ("final", 1.5), ("limit", -1)):
        with pytest.raises(ValueError, match=f"^{field} is {value}; give"):
            require.fields(SimpleNamespace(**{**vars(config), field: value}), **names)


# --- and only in the tests ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_library_itself_checks_nothing() -> None:
    program = "import slingshot.lm, sys; print('beartype' in sys.modules, 'shapes' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_a_library_that_was_imported_before_is_not_left_unchecked() -> None:
    program = "import slingshot.require, shapes"
    folder = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "slingshot is imported already, without its checks" in run.stderr


def test_most_functions_are_checked() -> None:
    """Each module that names a shape has its checks."""
    for path in LIBRARY.rglob("*.py"):
        if "from jaxtyping import" in path.read_text("utf-8"):
            module = ".".join(("slingshot", *path.relative_to(LIBRARY).with_suffix("").parts))
            __import__(module)
            assert any(name.startswith(f"{module}.") for name in shapes.CHECKED), module
