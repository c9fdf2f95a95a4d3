"""The numbers that the course looks up: one file, each number with its source.

``facts.yml`` beside this module holds every figure that comes from outside the course. A page never
types such a figure; it names its key, and gets the value together with where it was read, how sure
we are, and what it leaves out.
"""

import datetime
import difflib
import functools
import importlib.resources
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import yaml

from slingshot.require import is_finite, plain

Confidence = Literal["verified", "secondary", "reported"]
"""``verified``: read in the primary text. ``secondary``: read in a page about it. ``reported``:
repeated in the field, not re-read by us; no check may depend on it, and a page that uses one says
so."""

# Each unit with its plural. "1" counts nothing in particular; "date" marks a calendar day.
UNITS = {
    "1": "",
    "%": "%",
    "USD": "$",
    "CNY": "RMB",
    "GPU": "GPUs",
    "GPU hour": "GPU hours",
    "hour": "hours",
    "day": "days",
    "year": "years",
    "FLOP": "FLOPs",
    "byte": "bytes",
    "watt": "watts",
    "second": "seconds",
    "token": "tokens",
    "parameter": "parameters",
    "layer": "layers",
    "expert": "experts",
    "group": "groups",
    "node": "nodes",
    "problem": "problems",
    "row": "rows",
    "step": "steps",
    "nat": "nats",
    "bit": "bits",
    "mm2": "mm²",
    "TPP": "TPP",
    "point": "points",
    "million tokens": "million tokens",
    "thousand tokens": "thousand tokens",
    "trillion tokens": "trillion tokens",
    "date": "",
}
_WORDS = {10**12: "trillion", 10**9: "billion", 10**6: "million"}
_PREFIXES = {10**15: "P", 10**12: "T", 10**9: "G", 10**6: "M", 10**3: "k"}
# Not strftime's %B, which speaks the language of the machine once a program has asked for it.
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_KEY = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Fact:
    """One sourced number.

    ``value`` is in ``unit``, unscaled: 5576000 and not 5.576 with "million" in the unit. ``source``
    is a key of ``book/references.bib``, ``where`` the page, table or section in it, ``as_of`` the
    day for which the figure was stated, and ``leaves_out`` what a reader might think it includes.
    """

    key: str
    value: int | float | datetime.date
    unit: str
    label: str
    source: str
    where: str
    as_of: datetime.date
    confidence: Confidence
    leaves_out: str = ""

    @property
    def text(self) -> str:
        """The value with its unit, as a sentence would print it: ``$5.576 million``."""
        return format_value(self.value, self.unit)


def get(key: str) -> Fact:
    """Return the fact called ``key``; raise ``ValueError`` naming the nearest keys if unknown."""
    facts = _load()
    if key not in facts:
        near = difflib.get_close_matches(key, facts, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see slingshot.facts.keys()"
        raise ValueError(f"unknown fact {key!r}{hint}")
    return facts[key]


def value(key: str) -> float:
    """Return the number of the fact called ``key``, in its unit; a date raises ``ValueError``."""
    number = get(key).value
    if isinstance(number, datetime.date):
        raise ValueError(f"fact {key!r} is the date {number}, not a number; use get({key!r}).value")
    return number


def keys() -> tuple[str, ...]:
    """Return the names of all facts, in the order of the file."""
    return tuple(_load())


def parse_unit(unit: str) -> tuple[str, str]:
    """Split ``"USD/GPU hour"`` into ``("USD", "GPU hour")``; the second part may be empty.

    Raises ``ValueError`` when a part is not one of ``UNITS``.
    """
    numerator, _, denominator = unit.partition("/")
    for part in (numerator, denominator) if "/" in unit else (numerator,):
        if part not in UNITS:
            known = ", ".join(UNITS)
            raise ValueError(f"unit {unit!r} does not parse: {part!r} is not one of {known}")
    return numerator, denominator


def format_value(value: int | float | datetime.date, unit: str) -> str:
    """Format a value for a sentence: ``$5.576 million``, ``671 billion parameters``, ``5.5%``.

    Raises ``ValueError`` for an unknown unit, and a value that is not finite or does not fit it.
    """
    numerator, denominator = parse_unit(unit)
    value = plain(value)  # NumPy's -128 in int8 has no positive
    if not _fits(value, numerator):
        raise ValueError(
            f"value {value!r} does not fit unit {unit!r}; give a finite number, a date for 'date'"
        )
    if isinstance(value, datetime.date):
        return f"{MONTHS[value.month - 1]} {value.day}, {value.year}"
    if numerator in ("byte", "watt") or unit == "FLOP/second":
        symbol = {"byte": "B", "watt": "W"}.get(numerator, "FLOP")
        return _format_prefixed(value, symbol, denominator)
    number = _format_number(value)
    if numerator in ("USD", "CNY"):
        if re.fullmatch(r"−?[\d,]+\.\d", number):
            number += "0"  # cents: $1.10, and not $1.1
        sign, digits = ("−", number[1:]) if value < 0 else ("", number)
        text = f"{sign}${digits}" if numerator == "USD" else f"{sign}RMB {digits}"
    elif numerator == "%":
        text = f"{number}%"
    elif numerator == "1":
        text = number
    else:
        text = f"{number} {numerator if value == 1 else UNITS[numerator]}"
    return f"{text} per {denominator.replace('mm2', 'mm²')}" if denominator else text


def _format_number(value: int | float) -> str:
    """Every digit that is stored and none that is not, with thousands separators."""
    if value < 0:
        return "−" + _format_number(-value)
    if value >= 10**15:
        exponent = math.floor(math.log10(value))
        mantissa = f"{value / 10**exponent:.12g}"
        return f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    for scale, word in _WORDS.items():
        if value >= scale:
            return f"{value / scale:,.12g} {word}"
    return f"{value:,}".replace("-", "−")  # the exponent of a tiny number


def _format_prefixed(value: int | float, symbol: str, denominator: str) -> str:
    """Bytes, watts and FLOP rates, with a decimal prefix as on a data sheet: ``400 GB/s``."""
    per = {"": "", "second": "/s"}.get(denominator, f" per {denominator}")
    for scale, prefix in _PREFIXES.items():
        if abs(value) >= scale:
            return f"{value / scale:,.12g} {prefix}{symbol}{per}".replace("-", "−")
    return f"{value:,} {symbol}{per}".replace("-", "−")


@functools.cache
def _load() -> dict[str, Fact]:
    text = importlib.resources.files("slingshot").joinpath("facts.yml").read_text("utf-8")
    return parse(text)


def parse(text: str) -> dict[str, Fact]:
    """Read the YAML of ``facts.yml``; raise ``ValueError`` naming the entry that is wrong."""
    try:
        entries = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"facts are not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"facts must be a mapping from keys to entries, got {entries!r}")
    return {key: _parse_fact(key, entry) for key, entry in entries.items()}


# The same loader in C, six times as fast, where PyYAML was built with it.
_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(_SafeLoader):  # type: ignore[misc, valid-type]
    """A loader that refuses two entries of one name, where YAML would quietly keep the last."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [loader.construct_object(key) for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is defined twice, keep one{node.start_mark}")
    made: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return made


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _parse_fact(key: str, entry: Mapping[str, Any]) -> Fact:
    if not _KEY.fullmatch(str(key)):
        raise ValueError(f"fact {key!r}: a key is lower-case words joined by dots, as in v3.tokens")
    if not isinstance(entry, dict):
        raise ValueError(f"fact {key!r} must be a mapping, got {entry!r}")
    fields = set(Fact.__dataclass_fields__) - {"key"}
    if missing := fields - {"leaves_out"} - entry.keys():
        raise ValueError(f"fact {key!r} lacks {', '.join(sorted(missing))}")
    if unknown := entry.keys() - fields:
        raise ValueError(f"fact {key!r} has unknown fields {', '.join(sorted(unknown))}")
    fact = Fact(key=key, **entry)
    _check_fact(fact)
    return fact


def _check_fact(fact: Fact) -> None:
    try:
        numerator, _ = parse_unit(fact.unit)
    except ValueError as error:
        raise ValueError(f"fact {fact.key!r}: {error}") from error
    if not _fits(fact.value, numerator):
        raise ValueError(f"fact {fact.key!r}: value {fact.value!r} does not fit unit {fact.unit!r}")
    if not isinstance(fact.as_of, datetime.date):
        raise ValueError(f"fact {fact.key!r}: as_of {fact.as_of!r} is not a date like 2024-12-26")
    if fact.confidence not in get_args(Confidence):
        known = ", ".join(get_args(Confidence))
        raise ValueError(f"fact {fact.key!r}: confidence {fact.confidence!r} is not one of {known}")
    for field in ("label", "source", "where"):
        if not str(getattr(fact, field) or "").strip():
            raise ValueError(f"fact {fact.key!r}: {field} is empty")


def _fits(value: object, unit: str) -> bool:
    """A date for the unit date, and a finite number (True is none) for every other."""
    if unit == "date":
        return isinstance(value, datetime.date)
    return isinstance(value, int | float) and is_finite(value)
