import datetime
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slingshot import facts

ENTRY = """
v3.tokens:
  value: 14800000000000
  unit: token
  label: Tokens of pre-training
  source: deepseekv3
  where: section 1
  as_of: 2024-12-26
  confidence: verified
"""


def test_a_fact_carries_its_source() -> None:
    fact = facts.get("v3.gpu_hours.total")
    assert fact.source == "deepseekv3"
    assert fact.where
    assert fact.confidence == "verified"
    assert facts.value(fact.key) == fact.value
    assert fact.key in facts.keys()  # noqa: SIM118 a function of the module, not of a dict


def test_the_parts_of_v3s_bill_sum_to_its_total() -> None:
    parts = [
        facts.value(f"v3.gpu_hours.{part}") for part in ("pretraining", "context", "posttraining")
    ]
    assert sum(parts) == facts.value("v3.gpu_hours.total")
    cost = facts.value("v3.gpu_hours.total") * facts.value("v3.price_per_gpu_hour")
    assert cost == facts.value("v3.cost.total")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5_576_000, "USD", "$5.576 million"),
        (2, "USD/GPU hour", "$2 per GPU hour"),
        (0.55, "USD/million tokens", "$0.55 per million tokens"),
        (-3.5, "USD", "−$3.50"),
        (-5_000_000, "1", "−5 million"),
        (-3, "%", "−3%"),
        (-4e9, "byte", "−4 GB"),
        (1.1, "USD/million tokens", "$1.10 per million tokens"),
        (0.0008, "CNY/thousand tokens", "RMB 0.0008 per thousand tokens"),
        (2.5e6, "USD", "$2.5 million"),
        (5.92, "TPP/mm2", "5.92 TPP per mm²"),
        (20, "CNY/million tokens", "RMB 20 per million tokens"),
        (671_000_000_000, "parameter", "671 billion parameters"),
        (14_800_000_000_000, "token", "14.8 trillion tokens"),
        (1234.5, "USD", "$1,234.50"),
        (1, "expert", "1 expert"),
        (256, "expert", "256 experts"),
        (180_000, "GPU hour", "180,000 GPU hours"),
        (2.1e25, "FLOP", "2.1 × 10²⁵ FLOPs"),
        (3.8e-3, "1", "0.0038"),
        (400e9, "byte/second", "400 GB/s"),
        (80_000_000_000, "byte", "80 GB"),
        (10_200, "watt", "10.2 kW"),
        (7_000_000_000, "watt", "7 GW"),
        (989e12, "FLOP/second", "989 TFLOP/s"),
        (79.8, "%", "79.8%"),
        (datetime.date(2025, 1, 20), "date", "January 20, 2025"),
    ],
)
def test_format(value: float | datetime.date, unit: str, text: str) -> None:
    assert facts.format_value(value, unit) == text


@given(st.floats(1e-3, 1e24, allow_nan=False))
def test_the_printed_number_is_the_stored_one(value: float) -> None:
    printed = facts.format_value(value, "1")
    scales = {"million": 1e6, "billion": 1e9, "trillion": 1e12}
    if match := re.fullmatch(r"([\d.]+) × 10([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", printed):
        back = float(match[1]) * 10.0 ** int(
            match[2].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))
        )
    else:
        number, _, word = printed.partition(" ")
        back = float(number.replace(",", "")) * scales.get(word, 1)
    assert back == pytest.approx(value, rel=1e-11)  # 12 digits are printed


def test_an_unknown_key_is_named_with_its_neighbors() -> None:
    with pytest.raises(ValueError, match=r"'v3.gpu_hours.totl'.*v3.gpu_hours.total"):
        facts.get("v3.gpu_hours.totl")


def test_a_date_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="is the date"):
        facts.value("v3.release")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit: token", "unit: tokens", "'v3.tokens'.*unit 'tokens' does not parse"),
        ("unit: token", "unit: token/", "unit 'token/' does not parse"),
        ("unit: token", "unit: date", "does not fit unit 'date'"),
        ("value: 14800000000000", "value: 1e13", "'1e13' does not fit"),  # YAML reads a string
        ("value: 14800000000000", "value: .nan", "nan does not fit"),
        ("value: 14800000000000", "value: true", "True does not fit"),
        ("value: 14800000000000", "value: 2024-01-01", "does not fit unit 'token'"),
        ("as_of: 2024-12-26", "as_of: December", "as_of 'December' is not a date"),
        ("confidence: verified", "confidence: sure", "confidence 'sure' is not one of"),
        ("  source: deepseekv3\n", "", "lacks source"),
        ("source: deepseekv3", "source: ''", "source is empty"),
        ("where: section 1", "where: ' '", "where is empty"),
        ("where: section 1", "page: section 1", "lacks where"),
        ("confidence: verified", "confidence: verified\n  note: x", "unknown fields note"),
        ("v3.tokens:", "V3 tokens:", "a key is lower-case words"),
        ("v3.tokens:", "v3.tokens: 3\nv3.tokens:", "'v3.tokens' is defined twice, keep one"),
    ],
)
def test_a_wrong_entry_is_named(old: str, new: str, message: str) -> None:
    assert old in ENTRY
    assert facts.parse(ENTRY)
    with pytest.raises(ValueError, match=message):
        facts.parse(ENTRY.replace(old, new))


def test_what_is_not_yaml_is_named() -> None:
    with pytest.raises(ValueError, match=r"not YAML.*line 1"):
        facts.parse("v3.tokens: [1")


def test_a_date_is_english_whatever_the_machine_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enero(datetime.date):
        def __format__(self, spec: str) -> str:
            return "enero"

    assert facts.format_value(Enero(2025, 1, 20), "date") == "January 20, 2025"


def test_facts_must_be_a_mapping() -> None:
    with pytest.raises(ValueError, match="mapping"):
        facts.parse("[1, 2]")
    with pytest.raises(ValueError, match=r"'v3.tokens' must be a mapping"):
        facts.parse("v3.tokens: 3")


def test_without_yaml_in_c_the_facts_are_the_same_and_a_double_is_refused() -> None:
    code = f"""
import yaml
del yaml.CSafeLoader
from slingshot import facts
print(yaml.SafeLoader in facts._UniqueKeyLoader.__mro__, [facts.get(key) for key in facts.keys()])
try:
    facts.parse({ENTRY + ENTRY!r})
except ValueError as error:
    print(str(error).splitlines()[0])
"""
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=True)
    said, refused = run.stdout.splitlines()
    assert said == f"True {[facts.get(key) for key in facts.keys()]}"  # noqa: SIM118
    assert refused.startswith("'v3.tokens' is defined twice")
