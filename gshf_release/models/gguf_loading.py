"""Tokenizers of GGUF files as transformers leaves them unfinished: how text is split, and a chat template beside the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gshf_release.errors import CheckpointError

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits text before its merges: llama.cpp's `llama-bpe`."""
AS_TRANSFORMERS_READS_THEM = ("gpt-2", "qwen2")
"""Names of byte-level pre-tokenizers with which transformers' reader of GGUF gives llama.cpp's ids."""


def restore_pre_tokenizer(tokenizer: Any, path: Path) -> None:
    """Put back how a byte-level tokenizer splits text before its merges, which transformers leaves out when it reads GGUF.

    Without it SmolLM's `12`, and words that Llama 3 keeps whole, are other tokens than the model saw in training.

    Raises:
        CheckpointError: The file names a way of splitting that is not known here.
    """
    from gguf import GGUFReader
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    fields = (GGUFReader(path).get_field(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    kind, name = (None if field is None else field.contents() for field in fields)
    if kind != "gpt2" or name is None or name in AS_TRANSFORMERS_READS_THEM:
        return
    backend = tokenizer.backend_tokenizer
    if name == "smollm":
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    elif name == "llama-bpe":
        split = Split(Regex(LLAMA_3), "isolated")
        backend.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
        backend.model.ignore_merges = True  # a word that is a token is one, whatever its merges would make of it
    else:
        raise CheckpointError(
            f"{path} splits text as {name!r} (tokenizer.ggml.pre), which is not known here: its token ids would be wrong.",
            hint="Take the checkpoint folder that the file was made of.",
        )


def template_beside(path: Path) -> Path | None:
    """Return the chat template in the folder of a GGUF file that takes the place of the file's own, if there is one.

    `NAME.jinja` belongs to `NAME.gguf` alone, `chat_template.jinja` to every GGUF file of the folder.
    """
    beside = (path.with_suffix(".jinja"), path.with_name("chat_template.jinja"))
    return next((template for template in beside if template.is_file()), None)
