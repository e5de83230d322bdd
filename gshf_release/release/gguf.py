"""Convert a Hugging Face checkpoint folder into one GGUF file, the format of llama.cpp and its relatives.

    write_gguf(Path("checkpoint"), Path("model-Q8_0.gguf"), encoding="Q8_0", name="My model")

The folder holds `config.json`, `model.safetensors` (or shards with an index), `tokenizer.json`, and, where
the model has them, `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`. What is
covered is deliberately small: Llama and Mistral models with a byte-level BPE tokenizer. Everything else is
refused with a message, because a GGUF file that loads but computes or tokenizes something else is worse than
none.

Source of the key names, token types and tensor names: the GGUF specification,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
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
    TokenType,
)
from gguf.quants import quantize
from numpy.typing import NDArray

from gshf_release.errors import ReleaseError

GGUF_TYPES = ("F16", "BF16", "F32", "Q8_0")
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")

FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "F32": LlamaFileType.ALL_F32,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}

# From the steps of `pre_tokenizer` in tokenizer.json, as `_describe_step` spells them, to llama.cpp's name.
PRE_TOKENIZERS = {
    ("ByteLevel",): "gpt-2",
    ("Digits(individual)", "ByteLevel"): "smollm",
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
        raise ReleaseError(f"GGUF type {encoding!r} is not supported.", hint=f"Choose one of {_join(GGUF_TYPES)}.")
    config = _read_json(checkpoint / "config.json")
    model = _read_model(config)
    vocabulary = _read_vocabulary(checkpoint, model.vocabulary_size)
    tensors = _locate_tensors(checkpoint, model)

    writer = GGUFWriter(None, "llama")
    _add_model(writer, model, encoding, name)
    _add_vocabulary(writer, vocabulary)
    _add_special_tokens(writer, checkpoint, config, vocabulary)
    with _replacing(output) as partial:
        _write_file(writer, partial, tensors, encoding)


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
        raise ReleaseError(f"GGUF: architecture {_join(names)} is not supported.", hint=f"Use {_join(ARCHITECTURES)}.")
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


# -- the tokenizer -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Vocabulary:
    """A byte-level BPE: `tokens[i]` and `types[i]` belong to token id i."""

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    pre_tokenizer: str
    post_processor: dict[str, Any]

    def find(self, token: str | dict[str, Any] | None) -> int | None:
        """Return the id of a token as tokenizer_config.json spells it (text, or an object with `content`)."""
        text = token.get("content") if isinstance(token, dict) else token
        return self.tokens.index(text) if text in self.tokens else None


def _read_vocabulary(checkpoint: Path, size: int) -> _Vocabulary:
    """Read tokenizer.json; ids the model has and the tokenizer does not become unused `[PAD<id>]` tokens."""
    tokenizer = _read_json(checkpoint / "tokenizer.json")
    _check_byte_level(tokenizer)
    pre_tokenizer = _pre_tokenizer_name(tokenizer.get("pre_tokenizer"))
    tokens = [f"[PAD{token_id}]" for token_id in range(size)]
    types = [TokenType.UNUSED] * size
    for token_id, text, token_type in _numbered_tokens(tokenizer):
        if token_id >= size:
            raise ReleaseError(
                f"GGUF: token {text!r} has id {token_id}, but the model has {size} embedding rows.",
                hint="Resize the embeddings to the tokenizer.",
            )
        tokens[token_id], types[token_id] = text, token_type
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    return _Vocabulary(tokens, types, merges, pre_tokenizer, tokenizer.get("post_processor") or {})


def _numbered_tokens(tokenizer: dict[str, Any]) -> Iterator[tuple[int, str, TokenType]]:
    """Yield id, text and type of every token; the added tokens come last because they override."""
    for text, token_id in tokenizer["model"]["vocab"].items():
        yield token_id, text, TokenType.NORMAL
    for added in tokenizer.get("added_tokens") or []:
        yield added["id"], added["content"], TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED


def _check_byte_level(tokenizer: dict[str, Any]) -> None:
    """Refuse every tokenizer feature that GGUF's `gpt2` tokenizer model cannot express."""
    model = tokenizer.get("model") or {}
    normalizer = tokenizer.get("normalizer") or {}
    features = {
        f"model {model.get('type')!r}": model.get("type") != "BPE",
        "no byte-level decoder": (tokenizer.get("decoder") or {}).get("type") != "ByteLevel",
        "a normalizer": bool(normalizer.get("normalizers", normalizer)),
        "byte_fallback": bool(model.get("byte_fallback")),
        "ignore_merges": bool(model.get("ignore_merges")),
        "subword affixes": bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
    }
    if found := [feature for feature, present in features.items() if present]:
        raise ReleaseError(
            f"GGUF: a tokenizer with {_join(found)} is not supported.",
            hint="Use a byte-level BPE without normalizer (GPT-2, SmolLM).",
        )


def _pre_tokenizer_name(section: dict[str, Any] | None) -> str:
    section = section or {"type": "(none)"}
    steps = section["pretokenizers"] if section["type"] == "Sequence" else [section]
    description = tuple(_describe_step(step) for step in steps)
    if description not in PRE_TOKENIZERS:
        known = "; ".join(f"{name} = {' + '.join(steps)}" for steps, name in PRE_TOKENIZERS.items())
        raise ReleaseError(f"GGUF: pre-tokenizer {' + '.join(description)} is not supported.", hint=f"Known: {known}.")
    return PRE_TOKENIZERS[description]


def _describe_step(step: dict[str, Any]) -> str:
    """Spell one pre-tokenizer step; only the two spellings of `PRE_TOKENIZERS` are ever matched."""
    kind = str(step["type"])
    if kind == "ByteLevel" and step.get("use_regex", True) and not step.get("add_prefix_space", True):
        return kind
    if kind == "Digits" and step.get("individual_digits"):
        return "Digits(individual)"
    options = ", ".join(f"{key}={value}" for key, value in step.items() if key in ("use_regex", "add_prefix_space"))
    return f"{kind}({options})"


def _add_vocabulary(writer: GGUFWriter, vocabulary: _Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)


def _add_special_tokens(writer: GGUFWriter, checkpoint: Path, config: dict[str, Any], vocabulary: _Vocabulary) -> None:
    """Add the special ids, the BOS and EOS flags and the chat template.

    The ids at which generation stops come from generation_config.json, as in `generate()`; GGUF has room for
    three (end of sequence, of turn, of message). The other ids are the tokenizer's.
    """
    settings = _read_json(checkpoint / "tokenizer_config.json", optional=True)
    generation = _read_json(checkpoint / "generation_config.json", optional=True)
    ids = {key: vocabulary.find(settings.get(f"{key}_token")) for key in ("bos", "eos", "pad", "unk")}
    stops = _stop_ids(_first(generation.get("eos_token_id"), config.get("eos_token_id"), ids["eos"]), vocabulary)
    slots: list[tuple[Callable[[int], None], int | None]] = [
        (writer.add_bos_token_id, _first(ids["bos"], config.get("bos_token_id"))),
        *zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), stops, strict=False),
        (writer.add_pad_token_id, _first(ids["pad"], config.get("pad_token_id"))),
        (writer.add_unk_token_id, _first(ids["unk"], config.get("unk_token_id"))),
    ]
    for add, token_id in slots:
        if token_id is not None and 0 <= token_id < len(vocabulary.tokens):
            add(token_id)
    writer.add_add_bos_token(_adds_token("bos", settings, vocabulary))
    writer.add_add_eos_token(_adds_token("eos", settings, vocabulary))
    writer.add_chat_template(_chat_template(checkpoint, settings))


def _stop_ids(setting: int | list[int] | None, vocabulary: _Vocabulary) -> list[int]:
    listed = setting if isinstance(setting, list) else [setting]
    stops = [token_id for token_id in listed if token_id is not None and 0 <= token_id < len(vocabulary.tokens)]
    if not stops:
        raise ReleaseError(
            "GGUF: no end-of-sequence token of the vocabulary is set, so an engine would never stop.",
            hint="Set eos_token_id in generation_config.json.",
        )
    if len(stops) > 3:
        raise ReleaseError(f"GGUF: {len(stops)} end tokens are not supported.", hint="Leave at most 3 in eos_token_id.")
    return stops


def _adds_token(key: str, settings: dict[str, Any], vocabulary: _Vocabulary) -> bool:
    """Tell whether encoding adds the "bos" or "eos" token.

    As in transformers 5, a flag in tokenizer_config.json rules, otherwise the template in tokenizer.json.
    """
    token_id = vocabulary.find(settings.get(f"{key}_token"))
    if token_id is None:
        return False
    if "add_bos_token" in settings or "add_eos_token" in settings:
        return bool(settings.get(f"add_{key}_token"))
    processor = vocabulary.post_processor
    for step in processor.get("processors", [processor]):
        if template := step.get("single"):
            outer = template[0 if key == "bos" else -1]
            return vocabulary.find(outer.get("SpecialToken", {}).get("id")) == token_id
    return False


def _chat_template(checkpoint: Path, settings: dict[str, Any]) -> str:
    """Return the chat template, "" if there is none; read as bytes so that line ends stay what they are."""
    path = checkpoint / "chat_template.jinja"
    if path.is_file():
        return path.read_bytes().decode()
    template = settings.get("chat_template") or ""
    if isinstance(template, str):
        return template
    return next((entry["template"] for entry in template if entry["name"] == "default"), "")


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
                hint=f"Supported are unquantized weights in {_join(FLOAT_TYPES)}.",
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
    files = sorted(set(_read_json(index).get("weight_map", {}).values())) if index.is_file() else ["model.safetensors"]
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


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error}).", hint="GGUF needs a Hugging Face checkpoint folder."
        ) from None
    if not isinstance(content, dict):
        raise ReleaseError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


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


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _join(names: Any) -> str:
    return ", ".join(names)
