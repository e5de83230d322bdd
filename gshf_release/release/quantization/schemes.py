"""Name what a checkpoint can be quantized to, what each format needs, and what does not run here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gshf_release.errors import ReleaseError

PLAIN = ("BF16", "F16", "Q8_0")
"""GGUF encodings that this package writes itself."""
K_QUANTS = ("Q6_K", "Q5_K_M", "Q4_K_M")
"""GGUF encodings that llama.cpp writes."""
COMPRESSED = ("fp8", "gptq:W4A16")
SUPPORTED = (*(f"gguf:{encoding}" for encoding in (*PLAIN, *K_QUANTS)), *COMPRESSED)
NOT_RUN = {"awq": "AWQ needs a GPU: llm-compressor refuses to search its scales on a CPU"}
"""Scheme: why it is listed as not run instead of being made."""
GROUP_SIZES = (128, 64, 32)
"""Weights that share a scale in W4A16, in order of preference; a group must divide every row."""
SUPER_BLOCK = 256
"""Values of a K-quant's block; llama.cpp falls back to another type for tensors whose rows it does not divide."""
COMPRESSED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to quantize."""

    kind: Literal["gguf", "fp8", "gptq"]
    encoding: str
    """Of a GGUF file, or `FP8`, `W4A16`."""

    @property
    def name(self) -> str:
        """As on the command line and in the recipe."""
        return f"{self.kind}:{self.encoding}" if self.kind != "fp8" else "fp8"

    @property
    def label(self) -> str:
        """Return how a table calls it: `Q4_K_M`, `FP8`, `GPTQ-W4A16`."""
        return f"GPTQ-{self.encoding}" if self.kind == "gptq" else self.encoding

    @property
    def environment(self) -> str:
        """Return where it is made and measured."""
        return "llama-cpp" if self.kind == "gguf" else "quant"


def parse(text: str) -> Scheme:
    """Return the scheme that a name means; case does not matter.

    Raises:
        ReleaseError: There is no such scheme, or it does not run here; the hint names the nearest.
    """
    known = {name.lower(): name for name in SUPPORTED}
    wanted = text.strip().lower()
    if wanted in known:
        kind, _, encoding = known[wanted].partition(":")
        return Scheme(kind, encoding or "FP8")  # type: ignore[arg-type]
    if wanted.partition(":")[0] in NOT_RUN:
        reason = NOT_RUN[wanted.partition(":")[0]]
        raise ReleaseError(f"{text!r} is not run: {reason}.", hint="The nearest that fits: gptq:W4A16.")
    raise ReleaseError(
        f"There is no quantization {text!r}.",
        hint=f"The nearest is {_nearest(wanted)}; supported are {', '.join(SUPPORTED)}.",
    )


def _nearest(wanted: str) -> str:
    """Return the supported scheme of the same kind, the same number of bits and the most similar name, in that order."""
    kind, _, encoding = wanted.rpartition(":")
    same = [name for name in SUPPORTED if kind and name.startswith(f"{kind}:")] or list(SUPPORTED)
    bits = _bits(encoding)
    close = difflib.get_close_matches(wanted, [name.lower() for name in same], n=len(same), cutoff=0.0)
    by_name = {name.lower(): name for name in same}
    return by_name[min(close, key=lambda name: abs(_bits(name.rpartition(":")[2]) - bits) if bits else 0)]


def _bits(encoding: str) -> int:
    """Return the first number in an encoding's name, its bits, or 0."""
    found = re.search(r"\d+", encoding)
    return int(found[0]) if found else 0


def group_size(config: Mapping[str, Any]) -> int:
    """Return how many weights share a scale in W4A16: the largest group that divides the rows of every linear layer.

    Raises:
        ReleaseError: None does.
    """
    hidden = int(config["hidden_size"])
    heads = int(config["num_attention_heads"])
    rows = {hidden, int(config["intermediate_size"]), heads * int(config.get("head_dim") or hidden // heads)}
    for size in GROUP_SIZES:
        if all(row % size == 0 for row in rows):
            return size
    raise ReleaseError(
        f"gptq:W4A16: no group of {', '.join(map(str, GROUP_SIZES))} weights divides rows of {sorted(rows)}.",
        hint="The nearest that fits is fp8.",
    )


def check(checkpoint: Path, wanted: Sequence[Scheme], *, weights: bool = True) -> None:
    """Refuse, before any work, what a checkpoint cannot be quantized to.

    Args:
        checkpoint: A checkpoint folder; its config and tokenizer are read.
        wanted: The schemes.
        weights: Whether the tensors are there to be compared with the config.

    Raises:
        ReleaseError: An architecture, tokenizer or dimension does not fit; the hint names the nearest that does.
    """
    from gshf_release.release.quantization import gguf

    config = gguf.read_json(checkpoint / "config.json")
    if any(scheme.kind == "gguf" for scheme in wanted):
        gguf.check(checkpoint, weights=weights)
    compressed = [scheme for scheme in wanted if scheme.kind != "gguf"]
    architectures = config.get("architectures") or ["(none named)"]
    if compressed and not set(architectures) <= set(COMPRESSED_ARCHITECTURES):
        raise ReleaseError(
            f"{compressed[0].name}: architecture {', '.join(architectures)} is not supported.",
            hint=f"Supported are {', '.join(COMPRESSED_ARCHITECTURES)}; publish the BF16 weights alone.",
        )
    if any(scheme.kind == "gptq" for scheme in wanted):
        group_size(config)


def fallbacks(types: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return how many matrices got each type that is no K-quant, because 256 does not divide their rows.

    Args:
        types: Tensor name to type, as the file says.
        shapes: Tensor name to shape, the row length last.
    """
    counts: dict[str, int] = {}
    for name, kind in types.items():
        if len(shapes[name]) > 1 and shapes[name][-1] % SUPER_BLOCK and not kind.endswith("_K"):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))
