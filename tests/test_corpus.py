"""Text from source files: what is read, what is held out, what leaks, and how it becomes tokens."""

import hashlib
import inspect
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slingshot.corpus import (
    END_OF_TEXT,
    Document,
    Split,
    encode,
    load_corpus,
    numpy_documentation,
    repeated_share,
    split_documents,
    standard_library,
    train_tokenizer,
)

LONG = "# A comment that makes the file long enough to be read.\n" * 12
PASSAGE = ["for name in sorted(known_names):", "check(name, strict=True)", "count += len(name)"]


def write(root: Path, *names: str, text: str = LONG) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def name_with(remainder: int, every: int = 2) -> str:
    """A name whose checksum leaves ``remainder``: 0 is held out."""
    names = (f"module {number}" for number in range(1000))
    return next(name for name in names if zlib.crc32(name.encode()) % every == remainder)


def split_of(train: str, held_out: str) -> Split:
    """The split of one document of each kind."""
    return split_documents(
        [Document(name_with(1), train), Document(name_with(0), held_out)], every=2
    )


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


# --- what is read ------------------------------------------------------------------------------


def test_files_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path, "b.py", "a.py", "a/z.py", "a/deep/a.py", "c.txt", "d.pyc")
    names = [document.name for document in standard_library(tmp_path)]
    assert names == ["a/deep/a.py", "a/z.py", "a.py", "b.py"]


def test_what_installations_differ_in_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "kept.py", "test.py", "unittest/kept.py")
    write(tmp_path, "test/a.py", "json/tests/a.py", "site-packages/a/b.py", "idlelib/a.py")
    write(tmp_path, "config-3.11-x86_64-linux-gnu/a.py", "_sysconfigdata__linux.py")
    names = [document.name for document in standard_library(tmp_path)]
    assert names == ["kept.py", "test.py", "unittest/kept.py"]


def test_stubs_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "short.py", text="x" * 499)
    write(tmp_path, "long.py", text="x" * 500)
    assert standard_library(tmp_path) == [Document("long.py", "x" * 500)]


def test_a_byte_that_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(LONG.encode() + "caf\xe9".encode("latin-1"))
    (document,) = standard_library(tmp_path)
    assert document.text == LONG + "caf\ufffd"


def test_what_only_looks_like_a_file_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "kept.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "gone")
    assert [document.name for document in standard_library(tmp_path)] == ["kept.py"]


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_python_without_sources_is_named(tmp_path: Path, folder: str) -> None:
    message = f"no Python sources in {tmp_path / folder}; install Python with its standard library"
    with pytest.raises(FileNotFoundError, match=message):
        standard_library(tmp_path / folder)


# --- what is held out --------------------------------------------------------------------------


def test_names_alone_decide_what_is_held_out() -> None:
    documents = [Document(f"module{number}.py", f"text {number}") for number in range(400)]
    split = split_documents(documents, every=20)
    held_out = [document.name for document in split.held_out]
    assert sorted(split.train + split.held_out) == sorted(documents)
    # Binomial with mean 20 and deviation 4.4.
    assert 5 <= len(held_out) <= 35
    for added in ("another.py", name_with(0, every=20), name_with(1, every=20)):
        more = split_documents([Document(added, "more"), *documents], every=20)
        assert [d.name for d in more.held_out if d.name != added] == held_out
    rewritten = split_documents([Document(name, "new") for name, _ in documents], every=20)
    assert [document.name for document in rewritten.held_out] == held_out


@pytest.mark.parametrize("indent", ["", "        ", "\t"])
@pytest.mark.parametrize("gap", ["", "\n", "\n   \n"])
def test_a_copied_passage_is_removed_from_training(indent: str, gap: str) -> None:
    held_out = lines("before", *(f"    {line}" for line in PASSAGE), "after")
    copied = gap.join(f"{indent}{line}\n" for line in PASSAGE)
    split = split_of(train=lines("first") + copied + lines("last"), held_out=held_out)
    assert split.train[0].text.split() == ["first", "last"]
    assert split.held_out[0].text == held_out


def test_a_longer_copy_is_removed_whole() -> None:
    copy = lines(*PASSAGE, "total = 0", "return total, count, known_names, everything_else_too")
    assert split_of(train=copy + "kept\n", held_out=copy).train[0].text == "kept\n"


@pytest.mark.parametrize(
    "copied",
    [
        lines("try:", "import fast", "except ImportError:"),
        lines(*PASSAGE[:2]),
        lines(PASSAGE[0], "something else", *PASSAGE[1:]),
        lines(*reversed(PASSAGE)),
    ],
    ids=["short idiom", "two lines", "interrupted", "another order"],
)
def test_what_is_not_a_copied_passage_stays(copied: str) -> None:
    held_out = lines("try:", "import fast", "except ImportError:", *PASSAGE)
    assert split_of(train=copied, held_out=held_out).train[0].text == copied


def test_sixty_characters_make_a_passage() -> None:
    for length, kept in ((59, True), (60, False)):
        copied = lines("a", "b", "c" * (length - 4))  # two line breaks count
        assert (split_of(copied, copied).train[0].text == copied) is kept


@pytest.mark.parametrize(
    ("names", "every", "message"),
    [
        (["a", "b"], 1, "every is 1; give at least 2, 20 holds out a twentieth"),
        ([], 2, "0 of 0 documents are held out; give more"),
        ([name_with(0)], 2, "1 of 1 documents are held out; give more"),
        ([name_with(1)], 2, "0 of 1 documents are held out; give more"),
    ],
)
def test_a_split_with_an_empty_part_is_named(names: list[str], every: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_documents([Document(name, "text") for name in names], every)


def test_the_repeated_share_counts_long_lines_by_their_characters() -> None:
    train = Document("train", lines("x" * 30, "short"))
    held_out = Document("held out", lines("x" * 30, "y" * 60, "short"))
    assert repeated_share(Split([train], [held_out])) == pytest.approx(30 / 90)
    assert repeated_share(Split([train], [held_out]), shortest=4) == pytest.approx(35 / 95)
    with pytest.raises(ValueError, match="no held-out line has over 60 characters; give more docu"):
        repeated_share(Split([train], [held_out]), shortest=60)


# --- tokens ------------------------------------------------------------------------------------

TEXTS = ["def f(x):\n    return x\n", "def g(y):\n    return y\n"] * 5
TOKENIZER = train_tokenizer(TEXTS, 270)


@given(text=st.text().filter(lambda text: END_OF_TEXT not in text))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_encoding(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_the_vocabulary_is_the_end_every_byte_and_merges() -> None:
    assert TOKENIZER.get_vocab_size() == 270
    assert TOKENIZER.token_to_id(END_OF_TEXT) == 0
    assert len(TOKENIZER.encode("def f").ids) < 5
    # A short text has no more pairs to merge.
    assert train_tokenizer(TEXTS, 512).get_vocab_size() < 300
    bytes_only = train_tokenizer(TEXTS, 257)
    assert bytes_only.get_vocab_size() == 257
    assert len(bytes_only.encode("def f").ids) == 5


def test_the_same_text_gives_the_same_merges() -> None:
    assert train_tokenizer(iter(TEXTS), 270).to_str() == TOKENIZER.to_str()


def test_too_small_a_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="vocab_size is 256; give at least 257, a byte each and"):
        train_tokenizer(TEXTS, 256)


def test_documents_are_encoded_one_after_another() -> None:
    documents = [Document("a", "def f"), Document("empty", ""), Document("b", "return é")]
    tokens, numbers = encode(TOKENIZER, documents)
    assert tokens.dtype == numbers.dtype == torch.int64
    assert (tokens == 0).sum() == 3
    for number, document in enumerate(documents):
        own = tokens[numbers == number].tolist()
        assert own[-1] == 0
        assert TOKENIZER.decode(own[:-1]) == document.text
    assert torch.equal(numbers, numbers.sort().values)
    with pytest.raises(ValueError, match="documents is empty; give at least 1"):
        encode(TOKENIZER, [])


# --- the standard library ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_standard_library_is_enough_to_train_on() -> None:
    documents = standard_library()
    split = split_documents(documents)
    held_out = {document.name for document in split.held_out}
    untouched = [document for document in documents if document.name not in held_out]
    assert repeated_share(split) < repeated_share(Split(untouched, split.held_out))

    corpus = load_corpus()
    assert len(corpus.train) > 2_000_000
    assert corpus.tokenizer.get_vocab_size() == 512
    assert int(corpus.train.min()) == 0
    assert int(corpus.train.max()) < 512
    assert corpus.held_out_names == tuple(document.name for document in split.held_out)
    counts = corpus.held_out_documents.bincount(minlength=len(corpus.held_out_names))
    assert (counts > 100).all()
    n_bytes = sum(len(document.text.encode()) for document in split.held_out)
    assert corpus.bytes_per_token == pytest.approx(n_bytes / len(corpus.held_out))
    assert 1.5 < corpus.bytes_per_token < 3


# --- the documentation of NumPy ----------------------------------------------------------------


DOCUMENTATION_OF: Final = {
    "2.4.6": "5b1e875f3a096e96fb7811fe76bb2b3f3787957439b8071cc2912540cbf228ee"
}
"""By version of NumPy the SHA-256 of the text; the same on Python 3.11, 3.12, 3.13 and 3.14."""


def hash_of_the_documentation(*before: str, options: tuple[str, ...] = ()) -> str:
    """Read the documentation in a new process, after ``before``, and hash it."""
    program = (
        "import hashlib\nfrom slingshot.corpus import numpy_documentation as text\n"
        "print(hashlib.sha256(text().encode()).hexdigest())"
    )
    command = [sys.executable, *options, "-c", "\n".join([*before, program])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_documentation_is_the_one_that_the_stored_results_were_measured_on() -> None:
    assert np.__version__ in DOCUMENTATION_OF, (
        "NumPy has another version: store the new hash here, then `make experiments` and "
        "`make notebooks`, for its documentation is what a model is measured on"
    )
    text = numpy_documentation()
    assert hashlib.sha256(text.encode()).hexdigest() == DOCUMENTATION_OF[np.__version__]


@pytest.mark.slow
def test_the_documentation_is_the_same_whatever_else_is_imported() -> None:
    # SciPy rewrites the documentation of functions of NumPy when it is imported.
    others = "import scipy.special, scipy.signal, matplotlib.pyplot, torch"
    assert hash_of_the_documentation(others) == hash_of_the_documentation()


@pytest.mark.parametrize("indented", [False, True], ids=["before 3.13", "since 3.13"])
def test_the_paragraph_that_numpy_inserts_is_indented_alike(
    indented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = numpy_documentation()
    document = inspect.cleandoc(np.ones.__doc__ or "")
    inserted = "    Reference object to allow"
    lines = document.split("\n")
    start = next(n for n, line in enumerate(lines) if line.lstrip().startswith("Reference object"))
    stop = next(n for n in range(start, len(lines)) if not lines[n])
    assert inserted in "\n".join(lines[start:stop])
    lines[start:stop] = [" " * (8 if indented else 4) + line.strip() for line in lines[start:stop]]

    def ones() -> None: ...

    ones.__doc__ = "\n".join(lines)
    monkeypatch.setattr(np, "ones", ones)
    assert numpy_documentation() == wanted


@pytest.mark.slow
def test_without_docstrings_there_is_no_documentation() -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        hash_of_the_documentation(options=("-OO",))
    assert "run it without -OO" in error.value.stderr


def test_the_documentation_is_that_of_functions() -> None:
    text = numpy_documentation()
    assert "Compute the arithmetic mean along the specified axis." in text
    assert inspect.cleandoc(np.ndarray.__doc__ or "") not in text
    assert len(text) > 500_000
