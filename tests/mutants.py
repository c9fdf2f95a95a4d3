"""Small changes to the solutions of the exercises, to see whether the checks refuse them.

A solution is a tree; each change replaces one node of it: an operator, a constant, a bound, an
axis, an argument, a guard, a default, a type, or a statement that is left out. A mutant that both
checks accept is either equal to the solution for every input that the statement allows, or a wrong
answer that the checks miss. ``python tests/mutants.py`` makes them all and prints those that
survive; ``EQUAL`` in ``tests/test_mutants.py`` says of each why it may.
"""

import ast
import copy
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from exercise_counts_plugin import cells, checks, exercises, namespace_of
from slingshot_exercises.checking import Exercise

HIDDEN_SEED = 83
PATIENCE = 5.0

SWAPPED_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Pow: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq, ast.GtE, ast.LtE),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.USub: (ast.UAdd,),
}
SWAPPED_NAMES = {
    "min": ("max",),
    "max": ("min", "sum"),
    "sum": ("max", "mean", "len"),
    "mean": ("sum", "median"),
    "abs": ("float",),
    "round": ("int",),
    "any": ("all",),
    "all": ("any",),
    "ones": ("zeros",),
    "zeros": ("ones",),
    "trunc": ("floor", "rint"),
    "sigmoid": ("tanh", "exp"),
    "minimum": ("maximum",),
    "square": ("abs",),
    "expm1": ("exp",),
    "exp": ("expm1",),
    "std": ("var",),
    "int64": ("int32", "int16", "int8", "float32"),
    "float64": ("float32",),
    "split": ("rsplit",),
    "copysign": ("hypot",),
    "ones_like": ("zeros_like",),
    "zeros_like": ("ones_like",),
    "cumsum": ("cumprod",),
    "inf": ("e",),
}


def mutants(source: str, exercise: str) -> Iterator[tuple[str, str]]:
    """Every mutant of the function as ``(what was changed, source)``, none twice."""
    tree = ast.parse(source)
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == exercise)
    seen = {ast.unparse(tree)}
    for number, node in enumerate(ast.walk(function)):
        for said, change in changes(node, function):
            changed = copy.deepcopy(tree)
            (twin,) = (
                n for n in changed.body if isinstance(n, ast.FunctionDef) and n.name == exercise
            )
            if not change(list(ast.walk(twin))[number]):
                continue
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text not in seen:
                seen.add(text)
                yield f"line {getattr(node, 'lineno', 0)}: {said}", text


Change = Callable[[Any], bool]


def setting(name: str, value: Any) -> Change:  # noqa: ANN401 whatever a node holds
    """Set a field of the node."""

    def change(node: Any) -> bool:  # noqa: ANN401
        setattr(node, name, copy.deepcopy(value))
        return True

    return change


def becoming(other: Callable[[Any], ast.AST]) -> Change:
    """Turn the node into another one, in its place."""

    def change(node: Any) -> bool:  # noqa: ANN401
        new = other(copy.deepcopy(node))
        node.__class__ = new.__class__
        node.__dict__ = copy.deepcopy(new).__dict__
        return True

    return change


def changes(node: ast.AST, function: ast.FunctionDef) -> Iterator[tuple[str, Change]]:
    """All changes to one node."""
    yield from changes_of_operators(node)
    yield from changes_of_constants(node)
    yield from changes_of_names(node, function)
    yield from changes_of_calls(node)
    yield from changes_of_guards(node)
    yield from changes_of_order(node)


def changes_of_operators(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Another operator in the same place, or one side alone."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp):
        for new in SWAPPED_OPERATORS.get(type(node.op), ()):
            yield f"{type(node.op).__name__} to {new.__name__}", setting("op", new())
    if isinstance(node, ast.BinOp):
        yield "left side alone", becoming(lambda n: n.left)
        yield "right side alone", becoming(lambda n: n.right)
        if not isinstance(node.op, ast.Add | ast.Mult):
            yield "sides exchanged", becoming(lambda n: ast.BinOp(n.right, n.op, n.left))
    if isinstance(node, ast.BoolOp):
        for place in range(len(node.values)):
            left = [value for at, value in enumerate(node.values) if at != place]
            yield f"condition {place} dropped", setting("values", left * 2)
    if isinstance(node, ast.UnaryOp):
        yield "sign dropped", becoming(lambda n: n.operand)
    if isinstance(node, ast.Compare):
        for new in SWAPPED_OPERATORS.get(type(node.ops[0]), ()):
            yield f"{type(node.ops[0]).__name__} to {new.__name__}", setting("ops", [new()])


def changes_of_constants(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Numbers a little larger and smaller, flags turned over, texts changed."""
    if not isinstance(node, ast.Constant) or node.value is None:
        return
    value = node.value
    others: tuple[Any, ...] = ()
    if isinstance(value, bool):
        others = (not value,)
    elif isinstance(value, int):
        others = (value + 1, value - 1)
    elif isinstance(value, float):
        others = (2 * value, value / 2, -value, 0.0)
    elif isinstance(value, str):
        others = (value + value, value[:-1], value + " ") if len(value) < 20 else ()
    for other in others:
        yield f"{value!r} to {other!r}", setting("value", other)


def changes_of_names(node: ast.AST, function: ast.FunctionDef) -> Iterator[tuple[str, Change]]:
    """Another argument, another function of the same kind."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        arguments = [argument.arg for argument in function.args.args]
        for other in SWAPPED_NAMES.get(node.id, ()):
            yield f"{node.id} to {other}", setting("id", other)
        if node.id in arguments:
            for other in arguments:
                if other != node.id:
                    yield f"{node.id} to {other}", setting("id", other)
    if isinstance(node, ast.Attribute):
        for other in SWAPPED_NAMES.get(node.attr, ()):
            yield f".{node.attr} to .{other}", setting("attr", other)


def changes_of_calls(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Arguments left out or exchanged, and the call left out."""
    if not isinstance(node, ast.Call):
        return
    for place in range(len(node.args)):
        rest = [argument for at, argument in enumerate(node.args) if at != place]
        yield f"argument {place} dropped", setting("args", rest)
    for place in range(len(node.keywords)):
        left = [keyword for at, keyword in enumerate(node.keywords) if at != place]
        yield f"{node.keywords[place].arg}= dropped", setting("keywords", left)
    if len(node.args) > 1:
        yield "arguments exchanged", setting("args", node.args[::-1])
    if node.args:
        yield "call dropped, argument kept", becoming(lambda n: n.args[0])
    if isinstance(node.func, ast.Attribute):
        yield "method dropped", becoming(lambda n: n.func.value)
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        yield (
            "begins one later",
            becoming(
                lambda n: ast.Subscript(n, ast.Slice(ast.Constant(1), None, None), ast.Load())
            ),
        )
        yield (
            "ends one earlier",
            becoming(
                lambda n: ast.Subscript(n, ast.Slice(None, ast.Constant(-1), None), ast.Load())
            ),
        )
        yield (
            "from the end",
            becoming(
                lambda n: ast.Subscript(n, ast.Slice(None, None, ast.Constant(-1)), ast.Load())
            ),
        )


def changes_of_guards(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Conditions that always or never hold, statements left out, bounds left out."""
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "never", setting("test", ast.Constant(False))
        if not isinstance(node, ast.While):
            yield "always", setting("test", ast.Constant(True))
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Continue):
        yield "statement left out", becoming(lambda n: ast.Pass())
    if isinstance(node, ast.AugAssign):
        yield "assigned, not added", becoming(lambda n: ast.Assign([n.target], n.value))
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield f"{bound} bound dropped", setting(bound, None)
    if isinstance(node, ast.comprehension) and node.ifs:
        yield "filter dropped", setting("ifs", [])
    if isinstance(node, ast.arguments) and node.defaults:
        yield "default dropped", setting("defaults", [])


def changes_of_order(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Pairs turned about."""
    if isinstance(node, ast.Tuple | ast.List) and len(node.elts) > 1:
        yield "turned about", setting("elts", node.elts[::-1])
    if isinstance(node, ast.For):
        yield (
            "from the end",
            setting(
                "iter",
                ast.Subscript(
                    ast.Call(ast.Name("list", ast.Load()), [node.iter], []),
                    ast.Slice(None, None, ast.Constant(-1)),
                    ast.Load(),
                ),
            ),
        )


# --- trying them ---------------------------------------------------------------------------------


def accepted(assignment: str, exercise: str, source: str, seed: int) -> bool:
    """Whether a check accepts what the source defines."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with np.errstate(all="ignore"):
            function = namespace_of(assignment, source)[exercise]
            checks(assignment)[exercise](function, seed=seed)
    except Exception:  # it is refused, takes too long, or cannot be defined
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def survivors(
    assignment: str, exercise: str, each: int = 1
) -> tuple[int, list[tuple[str, str, str]]]:
    """How many mutants were made, and those that a check accepts: which, what, source."""
    solution = cells("source", assignment)[f"{assignment}-{exercise}"]
    made, found = 0, []
    with mock.patch.object(Exercise, "diagnose", return_value="wrong"):
        for number, (said, source) in enumerate(mutants(solution, exercise)):
            if number % each:
                continue
            made += 1
            seen = [
                name
                for name, seed in (("visible", 0), ("hidden", HIDDEN_SEED))
                if accepted(assignment, exercise, source, seed)
            ]
            if seen:
                found.append((" and ".join(seen), said, source))
    return made, found


def main() -> None:
    """Try all mutants of all exercises, or of those that are named."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for assignment, exercise in exercises():
        if wanted and exercise not in wanted and assignment not in wanted:
            continue
        made, found = survivors(assignment, exercise)
        print(f"{assignment:13} {exercise:24} {made:4} made, {len(found):3} survive", flush=True)
        solution = ast.unparse(ast.parse(cells("source", assignment)[f"{assignment}-{exercise}"]))
        for seen, said, source in found:
            new = [line.strip() for line in source.splitlines() if line not in solution]
            print(f"    {seen}: {said} | {' / '.join(new)[:150]}")


if __name__ == "__main__":
    main()
