"""What a notebook does first, and the stored results and measurements that it finds."""

from pathlib import Path

import pytest
import torch

from slingshot.pages import setup
from slingshot.results import stored_benchmark, stored_results


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook may lie in any folder, an empty one as well."""
    monkeypatch.chdir(tmp_path)


def test_results_and_measurements_are_found_from_any_folder() -> None:
    assert set(stored_results("mixture")["dense/0"]) == {"configuration", "result", "versions"}
    assert set(stored_benchmark("quant")) == {"machine", "rounds", "rows"}


@pytest.mark.parametrize("name", ["absent", "", "mixture.json", "../facts", "../benchmarks/quant"])
def test_what_is_not_stored_is_named_with_what_is(name: str) -> None:
    with pytest.raises(ValueError, match=r"none of the stored experiments; give .*mixture, "):
        stored_results(name)
    with pytest.raises(ValueError, match=r"none of the stored benchmarks; give .*\bquant\b"):
        stored_benchmark(name)


def test_setup_fixes_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        setup(threads=2)
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="threads is 0; give at least 1"):
            setup(threads=0)
    finally:
        torch.set_num_threads(before)
