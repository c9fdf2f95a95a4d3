"""The re-execution of notebooks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import notebooks  # noqa: E402
from tools.common import files  # noqa: E402

# --- notebooks ---------------------------------------------------------------------------------

WIDGET = "import ipywidgets\nipywidgets.IntSlider(3)"
STREAMS = "import time\nprint('a', flush=True)\ntime.sleep(0.3)\nprint('b')"


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


def test_notebooks_come_out_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.ipynb", "%pwd", WIDGET, STREAMS, "")
    path.chmod(0o640)
    unexecuted = path.read_bytes()
    assert notebooks.main(["--check", str(path)]) == 1
    assert "would change" in capsys.readouterr().err
    assert path.read_bytes() == unexecuted

    assert notebooks.main([str(path)]) == 0
    stored = path.read_bytes()
    assert notebooks.main([str(path)]) == 0
    assert path.read_bytes() == stored
    assert "unchanged" in capsys.readouterr().out
    assert path.stat().st_mode & 0o777 == 0o640
    assert notebooks.main(["--check", str(path)]) == 0

    notebook = json.loads(stored)
    assert stored.endswith(b"}\n")
    assert b"widget-view" not in stored
    assert "widgets" not in notebook["metadata"]
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, None]
    assert notebook["cells"][0]["outputs"][0]["data"]["text/plain"] == [repr(str(tmp_path))]
    assert notebook["cells"][1]["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=3)"]}
    assert [out["text"] for out in notebook["cells"][2]["outputs"]] == [["a\n", "b\n"]]


def test_a_measurement_stays_until_more_than_its_numbers_change(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"

    def run(*sources: str, tag: str = notebooks.MEASURES) -> list[str]:
        """Store the notebook with these sources and its present outputs; return the new texts."""
        notebook = json.loads(path.read_text("utf-8"))
        for cell, source in zip(notebook["cells"], sources, strict=True):
            cell["source"] = source
            cell["metadata"]["tags"] = [tag]
        path.write_text(json.dumps(notebook), "utf-8")
        assert notebooks.main([str(path)]) == 0
        cells = json.loads(path.read_text("utf-8"))["cells"]
        return ["".join(cell["outputs"][0]["text"]) for cell in cells]

    clock = "import time\nprint('took', time.perf_counter_ns(), 'ns')"
    write(path, clock)
    first = run(clock)
    assert run(clock) == first
    assert run(clock + "  # again") == first
    assert run(clock.replace("took", "needed"))[0].startswith("needed")
    unmarked = run(clock, tag="other")
    assert run(clock, tag="other") != unmarked


def test_a_raising_cell_is_named_and_the_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.ipynb", "1", "2", "def f():\n    return 1 / 0\nf()")
    before = path.read_bytes()
    assert notebooks.main([str(path)]) == 1
    line = capsys.readouterr().err.strip()
    assert line.endswith(
        "bad.ipynb: cell 3 (code cell 3) raised ZeroDivisionError: division by zero"
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["bad.ipynb"]


def test_ctrl_c_leaves_the_file_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "slow.ipynb", "open('started', 'w')\nimport time\ntime.sleep(60)")
    before = path.read_bytes()
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "every notebook on disk is whole" in stderr
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.ipynb", "1")
    before = path.read_bytes()

    def fail(source: str, target: Path) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        files.write_atomically(path, "new")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ipynb"]


def test_cells_without_an_id_get_one_that_stays() -> None:
    cells: list[dict[str, Any]] = [
        {"source": "a"},
        {"source": "a"},
        {"source": ["a"], "id": "mine"},
    ]
    notebooks.add_cell_ids(cells)
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    again = [{"source": "a"}, {"source": "a"}]
    notebooks.add_cell_ids(again)
    assert [cell["id"] for cell in again] == ids[:2]


def test_an_unknown_or_malformed_notebook_takes_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ipynb").write_text("not JSON")
    for name, words in [("nowhere", "no notebook 'nowhere'"), ("text.ipynb", "not a notebook")]:
        assert notebooks.main([str(tmp_path / name) if "." in name else name]) == 1
        err = capsys.readouterr().err
        assert words in err
        assert len(err.splitlines()) == 1
