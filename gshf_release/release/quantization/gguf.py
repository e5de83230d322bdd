"""Convert a Hugging Face checkpoint folder into one GGUF file, the format of llama.cpp and its relatives.

    write_gguf(Path("checkpoint"), Path("model-Q8_0.gguf"), encoding="Q8_0", name="My model")

The folder holds `config.json`, `model.safetensors` (or shards with an index), `tokenizer.json`, and, where
the model has them, `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`. What is
covered is deliberately small: Llama and Mistral models with a byte-level or SentencePiece BPE tokenizer
(`gguf_tokenizer.py`). Everything else is refused with a message, because a GGUF file that loads but computes
or tokenizes something else is worse than none.

Source of the key names, token types and tensor names: the GGUF specification,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFType, GGUFWriter
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    LlamaFileType,
)
from gguf.quants import quantize
from numpy.typing import NDArray

from gshf_release.errors import ReleaseError
from gshf_release.release.quantization import gguf_tokenizer
from gshf_release.release.quantization.gguf_tokenizer import NEAREST, join, read_json

GGUF_TYPES = ("F16", "BF16", "F32", "Q8_0")
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")

FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "F32": LlamaFileType.ALL_F32,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}

FLOAT_TYPES = ("F16", "BF16", "F32")
LARGEST_F16 = float(np.finfo(np.float16).max)


def write_gguf(checkpoint: Path, output: Path, *, encoding: str = "Q8_0", name: str) -> None:
    """Write the checkpoint in folder `checkpoint` as the GGUF file `output`.

    Matrices get `encoding`, except those whose rows do not divide into its blocks (32 values for Q8_0), which
    become F16; norm weights stay F32. One tensor is in memory at a time. The same input gives the same bytes.
    `output` appears only when it is complete.

    Args:
        checkpoint: Folder in the Hugging Face layout.
        output: File to write or replace; missing parent folders are made.
        encoding: One of `GGUF_TYPES`.
        name: What the file calls itself (`general.name`).

    Raises:
        ReleaseError: The encoding, architecture, tokenizer or a tensor is not supported, or a file is missing
            or broken.
    """
    if encoding not in GGUF_TYPES:
        raise ReleaseError(f"GGUF type {encoding!r} is not supported.", hint=f"Choose one of {join(GGUF_TYPES)}.")
    config = read_json(checkpoint / "config.json")
    model = _read_model(config)
    vocabulary = gguf_tokenizer.read_vocabulary(checkpoint, model.vocabulary_size)
    tensors = _locate_tensors(checkpoint, model)

    writer = GGUFWriter(None, "llama")
    _add_model(writer, model, encoding, name)
    gguf_tokenizer.add_vocabulary(writer, vocabulary)
    gguf_tokenizer.add_special_tokens(writer, checkpoint, config, vocabulary)
    with _replacing(output) as partial:
        _write_file(writer, partial, tensors, encoding)


def check(checkpoint: Path, *, weights: bool = True) -> None:
    """Refuse what `write_gguf` would refuse, without writing or reading weights.

    Args:
        checkpoint: Folder in the Hugging Face layout.
        weights: Whether it holds the tensors, so that their shapes are compared too.

    Raises:
        ReleaseError: The architecture, tokenizer or a tensor's shape is not supported; the hint names what is nearest.
    """
    config = read_json(checkpoint / "config.json")
    model = _read_model(config)
    vocabulary = gguf_tokenizer.read_vocabulary(checkpoint, model.vocabulary_size)
    gguf_tokenizer.add_special_tokens(GGUFWriter(None, "llama"), checkpoint, config, vocabulary)
    if weights:
        _locate_tensors(checkpoint, model)


# -- the model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    """The numbers of a Llama-like model; lengths are in values, the context in tokens."""

    context_length: int
    hidden: int
    feed_forward: int
    blocks: int
    heads: int
    key_value_heads: int
    head_length: int
    rms_epsilon: float
    rope_base: float
    vocabulary_size: int
    tied: bool


def _read_model(config: dict[str, Any]) -> _Model:
    _check_architecture(config)
    try:
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return _Model(
            context_length=_context_length(config),
            hidden=hidden,
            feed_forward=int(config["intermediate_size"]),
            blocks=int(config["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_length=int(config.get("head_dim") or hidden // heads),
            rms_epsilon=float(config["rms_norm_eps"]),
            rope_base=_rope_base(config),
            vocabulary_size=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise ReleaseError(f"config.json has no key {error}, which a Llama or Mistral model needs.") from None


def _check_architecture(config: dict[str, Any]) -> None:
    names = config.get("architectures") or ["(none named)"]
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        raise ReleaseError(
            f"GGUF: architecture {join(names)} is not supported.", hint=f"Use {join(ARCHITECTURES)}. {NEAREST}"
        )
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise ReleaseError(f"GGUF: hidden_act {activation!r} is not supported.", hint="Llama in GGUF means silu.")


def _context_length(config: dict[str, Any]) -> int:
    """Return the usable tokens: GGUF's Llama has no sliding window, so it is right within one window only."""
    length = int(config["max_position_embeddings"])
    return min(length, int(config.get("sliding_window") or length))


def _rope_base(config: dict[str, Any]) -> float:
    """Return the rotary base: in `rope_parameters` since transformers 5, at the top of the config before."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ReleaseError(
            f"GGUF: rotary scaling {kind!r} is not supported.", hint="Use a model with rope_type 'default'."
        )
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _add_model(writer: GGUFWriter, model: _Model, encoding: str, name: str) -> None:
    writer.add_type(GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[encoding])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(model.vocabulary_size)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.blocks)
    writer.add_feed_forward_length(model.feed_forward)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.key_value_heads)
    writer.add_key_length(model.head_length)
    writer.add_value_length(model.head_length)
    writer.add_layer_norm_rms_eps(model.rms_epsilon)
    writer.add_rope_dimension_count(model.head_length)
    writer.add_rope_freq_base(model.rope_base)


# -- the tensors ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """A tensor: its GGUF name, the name in the checkpoint, and its heads if rows change order."""

    name: str
    source: str
    shape: tuple[int, ...]
    rotary_heads: int = 0


def _expected_tensors(model: _Model) -> list[_Tensor]:
    """Return all tensors of the model in file order, named as in the GGUF specification."""
    hidden, inner = model.hidden, model.feed_forward
    query, key_value = model.heads * model.head_length, model.key_value_heads * model.head_length
    block = (
        _Tensor("attn_norm", "input_layernorm", (hidden,)),
        _Tensor("attn_q", "self_attn.q_proj", (query, hidden), model.heads),
        _Tensor("attn_k", "self_attn.k_proj", (key_value, hidden), model.key_value_heads),
        _Tensor("attn_v", "self_attn.v_proj", (key_value, hidden)),
        _Tensor("attn_output", "self_attn.o_proj", (hidden, query)),
        _Tensor("ffn_norm", "post_attention_layernorm", (hidden,)),
        _Tensor("ffn_gate", "mlp.gate_proj", (inner, hidden)),
        _Tensor("ffn_up", "mlp.up_proj", (inner, hidden)),
        _Tensor("ffn_down", "mlp.down_proj", (hidden, inner)),
    )
    tensors = [_Tensor("token_embd.weight", "model.embed_tokens.weight", (model.vocabulary_size, hidden))]
    for number in range(model.blocks):
        tensors += [
            _Tensor(
                f"blk.{number}.{t.name}.weight",
                f"model.layers.{number}.{t.source}.weight",
                t.shape,
                t.rotary_heads,
            )
            for t in block
        ]
    tensors.append(_Tensor("output_norm.weight", "model.norm.weight", (hidden,)))
    if not model.tied:
        tensors.append(_Tensor("output.weight", "lm_head.weight", (model.vocabulary_size, hidden)))
    return tensors


def _locate_tensors(checkpoint: Path, model: _Model) -> list[tuple[_Tensor, Path]]:
    """Pair every tensor of the model with its file; the files must hold just these, in these shapes."""
    found = _stored_tensors(checkpoint)
    located = []
    for tensor in _expected_tensors(model):
        if tensor.source not in found:
            raise ReleaseError(f"{checkpoint}: tensor {tensor.source} is missing.", hint="Save the whole model again.")
        path, shape, dtype = found.pop(tensor.source)
        if shape != tensor.shape or dtype not in FLOAT_TYPES:
            raise ReleaseError(
                f"{path}: {tensor.source} is {dtype} {shape}, config.json implies {tensor.shape}.",
                hint=f"Supported are unquantized weights in {join(FLOAT_TYPES)}.",
            )
        located.append((tensor, path))
    # A tied head repeats the embeddings; old checkpoints store rotary frequencies, which the config implies.
    extra = [name for name in found if name != "lm_head.weight" and not name.endswith("rotary_emb.inv_freq")]
    if extra:
        raise ReleaseError(
            f"{checkpoint}: tensor {extra[0]} and {len(extra) - 1} more are not supported.",
            hint="Plain Llama and Mistral weights are: no biases, adapters or quantization scales.",
        )
    return located


def _stored_tensors(checkpoint: Path) -> dict[str, tuple[Path, tuple[int, ...], str]]:
    """Return file, shape and type of every stored tensor, from the headers alone."""
    index = checkpoint / "model.safetensors.index.json"
    files = sorted(set(read_json(index).get("weight_map", {}).values())) if index.is_file() else ["model.safetensors"]
    stored = {}
    for path in (checkpoint / file for file in files):
        with _open_safetensors(path) as handle:
            for name in sorted(handle.keys()):
                view = handle.get_slice(name)
                stored[name] = (path, tuple(view.get_shape()), str(view.get_dtype()))
    return stored


def _open_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path}: cannot read the weights ({error}).", hint="GGUF needs safetensors.") from None


def _write_file(writer: GGUFWriter, path: Path, tensors: list[tuple[_Tensor, Path]], encoding: str) -> None:
    """Write the header with the place of every tensor, then load, encode and write the tensors one by one."""
    for tensor, _ in tensors:
        storage = _storage_type(tensor.shape, encoding)
        block, block_bytes = GGML_QUANT_SIZES[storage]
        size = math.prod(tensor.shape) // block * block_bytes
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=storage)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, source in tensors:
            storage = _storage_type(tensor.shape, encoding)
            writer.write_tensor_data(quantize(_load(tensor, source, storage), storage))
    finally:
        writer.close()


def _storage_type(shape: tuple[int, ...], encoding: str) -> GGMLQuantizationType:
    storage = GGMLQuantizationType[encoding]
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    return storage if shape[-1] % GGML_QUANT_SIZES[storage][0] == 0 else GGMLQuantizationType.F16


def _load(tensor: _Tensor, path: Path, storage: GGMLQuantizationType) -> NDArray[np.float32]:
    """Return one tensor as float32, in GGUF's row order; opening anew lets go of the pages mapped before."""
    with _open_safetensors(path) as handle:
        weights: NDArray[np.float32] = handle.get_tensor(tensor.source).float().numpy()
    limit = LARGEST_F16 if storage is GGMLQuantizationType.F16 else float(np.finfo(np.float32).max)
    if not np.abs(weights).max() <= limit:  # written so that NaN fails too
        raise ReleaseError(
            f"{path}: {tensor.source} has values that are not finite or do not fit {storage.name}.",
            hint="Check the training run; BF16 and F32 hold larger values than F16.",
        )
    return _interleave_rotary(weights, tensor.rotary_heads) if tensor.rotary_heads else weights


def _interleave_rotary(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key matrix `(heads * head_length, hidden)` for GGUF's rotary embedding.

    Transformers rotates row i of a head with row i + head_length / 2, GGUF's Llama row 2i with row 2i + 1.
    Source: GGUF specification, `llama.tensor_data_layout`.
    """
    halves = weights.reshape(heads, 2, -1, weights.shape[-1])
    return np.ascontiguousarray(halves.transpose(0, 2, 1, 3)).reshape(weights.shape)


# -- small helpers -------------------------------------------------------------------------------------------


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a temporary path beside `output` that becomes `output` on success and is removed on failure."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
