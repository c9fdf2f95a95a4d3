"""The shapes in the library's signatures, checked at each call that a test makes.

jaxtyping reads ``Float[Tensor, "T k"]`` and beartype checks it, here and only here: a learner's
library pays for neither. One letter is one size within a call. An inner function, whose name
begins with an underscore, is checked before it runs. A public one is a door, which has refusals of
its own to make: what it lets through is checked afterwards, with what it returns.
"""

import ast
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Final

from beartype.door import is_bearable
from jaxtyping import AbstractArray, AnnotationError, jaxtyped
from torch import Tensor

CHECKED: Final[list[str]] = []
"""The functions and records whose shapes are checked, by their full names."""


class ShapeError(AssertionError):
    """A tensor is not of the shape or type that a signature says."""


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which refuses what its signature does not say."""
    name = f"{function.__module__}.{function.__qualname__}"
    CHECKED.append(name)
    own = function.__name__
    is_inner = own.startswith("_") and not own.startswith("__")
    signature = inspect.signature(function)
    # Read at the first call: until then a signature may name what its module defines below.
    hints = functools.cache(lambda: shaped_hints(typing.get_type_hints(function)))

    @functools.wraps(function)
    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401
        """Check what is given when the first item has come, for so late does it refuse."""
        given = signature.bind(*args, **kwargs).arguments
        for item in function(*args, **kwargs):
            with jaxtyped("context"):
                check(name, hints(), {**given, "return": iter([item])})
                if "return" in hints():
                    (kind,) = typing.get_args(hints()["return"])
                    check(name, {"item": kind}, {"item": item})
            yield item

    if inspect.isgeneratorfunction(function):
        return iterate

    passed: set[object] = set()  # what has been looked at need not be again

    def look(args: tuple[Any, ...], kwargs: dict[str, Any], *result: object) -> None:
        key = (form(args), form(tuple(kwargs.items())), form(result))
        if key in passed:
            return
        given = signature.bind(*args, **kwargs).arguments
        with jaxtyped("context"):
            check(name, hints(), {**given, **({"return": result[0]} if result else {})})
        passed.add(key)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if is_inner:
            look(args, kwargs)
        result = function(*args, **kwargs)
        look(args, kwargs, result)
        return result

    return call


def check_fields(record: type) -> type:
    """Return a named tuple or a dataclass that refuses fields of other shapes."""
    if not hasattr(record, "_fields") and not hasattr(record, "__dataclass_fields__"):
        return record  # a module, whose tensors come and go
    name = f"{record.__module__}.{record.__qualname__}"
    CHECKED.append(name)
    maker = "__new__" if hasattr(record, "_fields") else "__init__"
    make = getattr(record, maker)
    signature = inspect.signature(make)
    hints = functools.cache(lambda: shaped_hints(typing.get_type_hints(record)))

    @functools.wraps(make)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        made = make(*args, **kwargs)
        with jaxtyped("context"):
            check(name, hints(), signature.bind(*args, **kwargs).arguments)
        return made

    setattr(record, maker, call)
    return record


def form(value: object) -> object:
    """All of a value that a hint can look at: types and shapes."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, tuple | list):
        return type(value), tuple(map(form, value))
    return value if isinstance(value, str) else type(value)


def check(where: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise `ShapeError` for the first of ``values`` that is not what its hint says."""
    names = [name for name in hints if name in values]
    waiting: set[str] = set()
    while names:
        name = names.pop(0)
        hint = hints[name]
        try:
            fits = is_bearable(values[name], hint)
        except AnnotationError:  # of 2*h, where h is the size of what comes later
            if name in waiting:
                raise
            waiting.add(name)
            names.append(name)
            continue
        if not fits:
            others = ", ".join(f"{key} {told(value)}" for key, value in values.items())
            raise ShapeError(f"{where}: {name} is not {hint}; got {others}")


def told(value: object) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(told, value[:4]))})"
    return type(value).__name__


def shaped_hints(hints: Mapping[str, Any]) -> dict[str, Any]:
    """Those hints that say a shape, what is returned last."""
    return {name: hint for name, hint in hints.items() if says_shape(hint)}


def says_shape(hint: Any) -> bool:  # noqa: ANN401
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(says_shape(each) for each in typing.get_args(hint))


# --- how they come into the library ------------------------------------------------------------


class _Decorate(ast.NodeTransformer):
    """Puts a check on each function and record of a module that names a jaxtyping type."""

    def __init__(self, types: set[str]) -> None:
        self.types = types

    def says_shape(self, nodes: Sequence[ast.AST | None]) -> bool:
        names = [each for node in nodes if node is not None for each in ast.walk(node)]
        return any(isinstance(each, ast.Name) and each.id in self.types for each in names)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if self.says_shape([node.returns, *(each.annotation for each in every)]):
            # The innermost, so that it sees the function itself and not a static method.
            node.decorator_list.append(_named("check_shapes", node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        fields = [each.annotation for each in node.body if isinstance(each, ast.AnnAssign)]
        if self.says_shape(fields):
            node.decorator_list.insert(0, _named("check_fields", node))  # when all is made
        return node


def _named(name: str, node: ast.stmt) -> ast.expr:
    made = ast.parse(f"__import__({__name__!r}).{name}", mode="eval").body
    for each in ast.walk(made):
        ast.copy_location(each, node)
    return made


class _Loader(SourceFileLoader):
    """Compiles a module of the library with its checks, and keeps nothing in ``__pycache__``."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        types = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping"
            for alias in node.names
        }
        if types:
            tree = _Decorate(types).visit(tree)
        code: CodeType = compile(tree, path, "exec")
        return code


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] != "slingshot":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Check the library's shapes from now on; importing this does it, before the library."""
    if early := sorted(name for name in sys.modules if name.split(".")[0] == "slingshot"):
        raise RuntimeError(f"{early[0]} is imported already, without its checks")
    sys.meta_path.insert(0, _Finder())


install()
