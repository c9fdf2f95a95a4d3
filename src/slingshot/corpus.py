"""Real text that every reader has: the sources of Python's own standard library.

Seven million characters of code and English, present wherever Python is, so nothing is downloaded.
They differ a little between versions of Python; compare losses only within one. Where that will not
do there is the documentation of NumPy, which is pinned.
"""

import inspect
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

END_OF_TEXT: Final = "<|endoftext|>"
"""The token between two documents. It has id 0."""

# Left out: what installations often lack (tests, Tk and its applications, packaging), what is not
# part of the library (site-packages, build settings), and tables that nearly repeat one another.
_LEFT_OUT: Final = frozenset(
    [
        *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
        *("lib2to3", "distutils", "ensurepip", "encodings", "pydoc_data", "__phello__"),
    ]
)
_SHORTEST: Final = 500  # characters: shorter files are stubs that import something else
_SHORTEST_DOCUMENTATION: Final = 400  # characters: shorter ones point to another function

# Shorter passages repeat because code does (`else:`, `return self`), not because they were copied.
_PASSAGE_LINES: Final = 3
_PASSAGE_CHARACTERS: Final = 60


class Document(NamedTuple):
    """A file: its name, and its text."""

    name: str
    text: str


class Split(NamedTuple):
    """Documents to learn from, and documents held out to measure on."""

    train: list[Document]
    held_out: list[Document]


@dataclass(frozen=True)
class Corpus:
    """Text as tokens: ``train [N]`` and ``held_out [M]``, both int64, documents one after another.

    ``held_out_documents [M]`` says from which of ``held_out_names`` each token comes.
    ``bytes_per_token`` is that of the held-out text: nats per token over it, over ln 2, are bits
    per byte.
    """

    train: Int64[Tensor, "N"]
    held_out: Int64[Tensor, "M"]
    held_out_documents: Int64[Tensor, "M"]
    held_out_names: tuple[str, ...]
    tokenizer: Tokenizer
    bytes_per_token: float


def load_corpus(vocab_size: int = 512) -> Corpus:
    """Read the standard library, split it, and encode it with a tokenizer of ``vocab_size`` tokens.

    Takes a few seconds. Raises ``ValueError`` when ``vocab_size`` is below 257, and
    ``FileNotFoundError`` when this Python has no sources.
    """
    split = split_documents(standard_library())
    tokenizer = train_tokenizer((document.text for document in split.train), vocab_size)
    train, _ = encode(tokenizer, split.train)
    held_out, documents = encode(tokenizer, split.held_out)
    n_bytes = sum(len(document.text.encode()) for document in split.held_out)
    return Corpus(
        train=train,
        held_out=held_out,
        held_out_documents=documents,
        held_out_names=tuple(document.name for document in split.held_out),
        tokenizer=tokenizer,
        bytes_per_token=n_bytes / len(held_out),
    )


def standard_library(root: Path | None = None) -> list[Document]:
    """Return the modules of the standard library in the order of their paths.

    Very short ones are left out, and folders that not every installation has. A byte that is not
    UTF-8 becomes U+FFFD.

    ``root`` is the folder to read, by default that of this Python. Raises ``FileNotFoundError``
    when there is no source in it.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    documents = []
    # By parts, for Windows compares paths without regard to case.
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        name = path.relative_to(root)
        generated = name.name.startswith("_sysconfigdata")
        if generated or any(p in _LEFT_OUT or p.startswith("config-") for p in name.parts):
            continue
        if not path.is_file():  # a folder so named, or a link to nowhere
            continue
        text = path.read_text("utf-8", errors="replace")
        if len(text) >= _SHORTEST:
            documents.append(Document(name.as_posix(), text))
    if not documents:
        raise FileNotFoundError(
            f"no Python sources in {root}; install Python with its standard library as .py files"
        )
    return documents


def numpy_documentation() -> str:
    """Return the documentation of NumPy's functions, in the order of their names.

    English and code in one version for every reader, since NumPy is pinned: what is measured on it
    repeats under another Python. Types are left out, which differ between platforms. Raises
    ``RuntimeError`` when this Python runs without docstrings.
    """
    if sys.flags.optimize >= 2:
        raise RuntimeError(
            "Python drops docstrings here; run it without -OO and without PYTHONOPTIMIZE=2"
        )
    documents = []
    for name in sorted(set(np.__all__) - {"sinc"}):  # SciPy rewrites it when it is imported
        thing = getattr(np, name)
        if callable(thing) and not isinstance(thing, type):
            document = _evenly_indented(inspect.cleandoc(thing.__doc__ or ""))
            if len(document) >= _SHORTEST_DOCUMENTATION:
                documents.append(document)
    return "\n\n".join(documents)


def _evenly_indented(document: str) -> str:
    """Return the same on each Python for the functions that take ``like``.

    NumPy writes the paragraph on it into their docstrings when it is imported. Since 3.13 the
    compiler has by then taken the indentation of the docstring away, and not that of the paragraph.
    """
    paragraph = r"(?<=^like : array_like, optional\n)(?: {8}.*\n)+"
    return re.sub(paragraph, lambda m: re.sub("^    ", "", m[0], flags=re.M), document, flags=re.M)


def split_documents(documents: Sequence[Document], every: int = 20) -> Split:
    """Hold out about one document in ``every``, and drop from the others what also stands in it.

    A checksum of its name decides for each document, so that a new file moves no other. Copied
    passages would let a model score by remembering: three lines in a row (blank lines and
    indentation aside, 60 characters or more) that also stand in a held-out document are removed
    from training. Raises ``ValueError`` when ``every`` is below 2 or one of the two parts comes out
    empty.
    """
    if every < 2:
        raise ValueError(f"every is {every}; give at least 2, 20 holds out a twentieth")
    chosen = [zlib.crc32(document.name.encode()) % every == 0 for document in documents]
    if all(chosen) or not any(chosen):
        raise ValueError(f"{sum(chosen)} of {len(documents)} documents are held out; give more")
    held_out = [document for document, out in zip(documents, chosen, strict=True) if out]
    known = {passage for document in held_out for passage in _passages(document.text).values()}
    train = [
        Document(name, _without(text, known))
        for (name, text), out in zip(documents, chosen, strict=True)
        if not out
    ]
    return Split(train, held_out)


def repeated_share(split: Split, shortest: int = 25) -> float:
    """Return the share of held-out text, in lines over ``shortest`` characters, seen in training.

    A measure of what leaks. Lines that repeat by idiom, not by copying, count too. Raises
    ``ValueError`` when no held-out line is that long.
    """
    known = {line for document in split.train for line in document.text.splitlines()}
    lines = [
        line
        for document in split.held_out
        for line in document.text.splitlines()
        if len(line) > shortest
    ]
    if not lines:
        raise ValueError(f"no held-out line has over {shortest} characters; give more documents")
    return sum(len(line) for line in lines if line in known) / sum(map(len, lines))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE of ``vocab_size`` tokens: `END_OF_TEXT`, 256 bytes, and merges.

    A short text gives fewer. Where a text spells `END_OF_TEXT`, the tokenizer reads that token.

    Source: Sennrich et al., arXiv 1508.07909; over bytes as in GPT-2. Raises ``ValueError`` when
    ``vocab_size`` is below 257.
    """
    if vocab_size < 257:
        raise ValueError(f"vocab_size is {vocab_size}; give at least 257, a byte each and the end")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(
    tokenizer: Tokenizer, documents: Sequence[Document]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Return all tokens ``[N]`` int64, `END_OF_TEXT` after each document, and their documents.

    Those are numbers ``[N]`` from 0, in the order given. Raises ``ValueError`` when there is none,
    and for a tokenizer that has no `END_OF_TEXT`.
    """
    if not documents:
        raise ValueError("documents is empty; give at least 1")
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise ValueError(f"the tokenizer has no token {END_OF_TEXT}; take one of train_tokenizer")
    encodings = tokenizer.encode_batch([document.text for document in documents])
    ids = [torch.tensor([*encoding.ids, end], dtype=torch.int64) for encoding in encodings]
    numbers = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(each) for each in ids]))
    return torch.cat(ids), numbers


def _passages(text: str) -> dict[tuple[int, ...], str]:
    """Every three lines in a row of ``text`` that are long enough, by their line numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines())]
    lines = [(number, line) for number, line in lines if line]
    rows = zip(*(lines[start:] for start in range(_PASSAGE_LINES)), strict=False)
    passages = {
        tuple(number for number, _ in row): "\n".join(line for _, line in row) for row in rows
    }
    return {n: text for n, text in passages.items() if len(text) >= _PASSAGE_CHARACTERS}


def _without(text: str, known: set[str]) -> str:
    """Return ``text`` less the lines of every passage that is ``known``."""
    gone = {n for numbers, passage in _passages(text).items() if passage in known for n in numbers}
    lines = text.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines) if number not in gone)
