"""The sizes of a checkpoint, read from its configuration and the headers of its files; no weights are loaded."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data import documents
from gshf_release.errors import CheckpointError, GshfError, first_line
from gshf_release.models.checkpoint_files import read_object

LARGEST = 2**60
GATED_DECODERS = ("llama", "mistral", "qwen2")
"""Model types whose parameters `_decoder_parameters` counts: pre-norm decoders with a gated MLP and grouped-query attention."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Holds what a plan needs to know of a model. None where the files do not say."""

    parameters: int | None
    layers: int | None = None
    width: int | None = None
    """Of the residual stream (hidden size)."""
    key_values: int | None = None
    """Numbers that the key-value cache keeps per token and layer, keys or values alone."""
    vocabulary: int | None = None


def read_size(path: Path) -> ModelSize:
    """Return the sizes of a checkpoint folder or GGUF file.

    Parameters are counted in the headers of the safetensors files or the GGUF file where they are there, else from the
    configuration.

    Raises:
        CheckpointError: The files are damaged, or name sizes that are none.
        KeyError: The configuration is of a kind that does not state its sizes in the usual words.
    """
    try:
        found = _of_gguf(path) if path.is_file() else _of_folder(path)
    except (GshfError, KeyError):
        raise
    except Exception as error:  # damaged files bring whatever comes
        raise CheckpointError(f"The sizes of {path} cannot be read: {first_line(error)}.") from error
    sizes = (found.parameters, found.layers, found.width, found.key_values, found.vocabulary)
    if not all(size is None or (isinstance(size, int) and 0 < size < LARGEST) for size in sizes):
        raise CheckpointError(f"{path} names sizes that no model has.", hint="Look at its config.json.")
    return found


def _of_folder(path: Path) -> ModelSize:
    config = read_object(path / "config.json")
    config = config | config.get("text_config", {})
    heads = config.get("num_attention_heads")
    head = config.get("head_dim") or (config["hidden_size"] // heads if heads and "hidden_size" in config else None)
    key_values = config.get("num_key_value_heads") or heads
    counted = sum(_safetensors_parameters(file) for file in path.glob("*.safetensors"))
    return ModelSize(
        parameters=counted or _decoder_parameters(config),
        layers=config.get("num_hidden_layers"),
        width=config.get("hidden_size"),
        key_values=key_values * head if key_values and head else None,
        vocabulary=config.get("vocab_size"),
    )


def _safetensors_parameters(path: Path) -> int:
    """Return the number of values in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > path.stat().st_size - 8:
            raise CheckpointError(f"{path} is not a safetensors file, or is cut.")
        header = documents.parse_json(stream.read(length).decode("utf-8"))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _decoder_parameters(config: dict[str, Any]) -> int | None:
    """Return the parameters of a decoder of a known kind: embeddings, and per layer attention, gated MLP and two norms."""
    if config.get("model_type") not in GATED_DECODERS:
        return None
    width, layers, inner = (config[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, key_values = heads * head, (config.get("num_key_value_heads") or heads) * head
    attention = width * (2 * queries + 2 * key_values)
    if config["model_type"] == "qwen2":
        attention += queries + 2 * key_values  # biases of queries, keys and values
    per_layer = attention + 3 * width * inner + 2 * width
    embedding = config["vocab_size"] * width
    scorer = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())
    tied = 0 if config.get("tie_word_embeddings") else embedding
    return int(embedding + layers * per_layer + width + (width if scorer else tied))


def _of_gguf(path: Path) -> ModelSize:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    kind = _field(reader, "general.architecture")

    def sizes(name: str) -> list[int]:
        """Return a size of every layer: one number for all, or one each (Gemma 4, hybrid models); [] if it is not there."""
        value = _field(reader, f"{kind}.{name}")
        return [] if value is None else [int(entry) for entry in (value if isinstance(value, list) else [value])]

    width, heads = max(sizes("embedding_length"), default=None), sizes("attention.head_count")
    keys = _a_layer(heads, sizes("attention.head_count_kv") or heads, sizes("attention.key_length"), width)
    embedding = next((tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
    return ModelSize(
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors) or None,
        layers=max(sizes("block_count"), default=None),
        width=width,
        key_values=keys,
        vocabulary=None if embedding is None else int(embedding.shape[1]),
    )


def _a_layer(heads: list[int], key_heads: list[int], lengths: list[int], width: int | None) -> int | None:
    """Return the numbers that a layer keeps of a token's keys, on the average; layers without attention keep none."""
    most = max(heads, default=0)
    length = max(lengths, default=0) or (width // most if width and most else 0)
    return math.ceil(length * sum(key_heads) / len(key_heads)) if length and any(key_heads) else None


def _field(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()
