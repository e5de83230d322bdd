"""The chat template of a release: one text wherever it is stored, and the base model's unless a change is declared.

A template is a program that every user runs; a changed one can change what a model answers without touching a weight.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gshf_release.errors import ReleaseError
from gshf_release.models.checkpoint_files import read_object

FILE = "chat_template.jinja"
GGUF_KEY = "tokenizer.chat_template"


def template_of(folder: Path) -> str | None:
    """Return the chat template of a checkpoint folder, or None if it has none.

    Raises:
        ReleaseError: `tokenizer_config.json` and `chat_template.jinja` hold different ones, or one is no text.
        CheckpointError: `tokenizer_config.json` is damaged.
    """
    path = folder / FILE
    try:
        own = path.read_bytes().decode("utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path} is not UTF-8 text.") from error
    configured = _configured(folder / "tokenizer_config.json")
    if own is not None and configured is not None and own != configured:
        raise ReleaseError(f"tokenizer_config.json and {FILE} hold different chat templates.")
    return configured if own is None else own


def gguf_template(path: Path) -> str | None:
    """Return the chat template inside a GGUF file.

    Raises:
        ReleaseError: The file cannot be read.
    """
    from gguf import GGUFReader

    try:
        field = GGUFReader(path).get_field(GGUF_KEY)
    except (ValueError, IndexError, OverflowError) as error:
        raise ReleaseError(f"{path.name} is not a readable GGUF file: {error}.") from error
    return None if field is None else str(field.contents())


def templates_in(folder: Path) -> dict[str, str]:
    """Return `{file: template}` of a release folder: the checkpoint's, and that of each GGUF file.

    Raises:
        ReleaseError: Two places of the checkpoint differ, or a file cannot be read.
    """
    found = {path.name: gguf_template(path) for path in sorted(folder.glob("*.gguf"))}
    found[FILE] = template_of(folder)
    return {name: text for name, text in found.items() if text is not None}


def sha256(folder: Path) -> str | None:
    """Return the sha256 of a release folder's one chat template, or None if it has none.

    Raises:
        ReleaseError: Its files hold different ones.
    """
    found = templates_in(folder)
    if len(set(found.values())) > 1:
        raise ReleaseError(f"{' and '.join(sorted(found))} hold different chat templates.")
    return hashlib.sha256(next(iter(found.values())).encode()).hexdigest() if found else None


def check_against_base(folder: Path, base: str | None, declared: str | None) -> None:
    """Refuse a chat template that is not the base model's, unless the change is declared.

    Args:
        folder: A release folder.
        base: The base model's template; None if it has none.
        declared: Why it was changed (`release.template_change`), or None.

    Raises:
        ReleaseError: It differs and nothing is declared.
    """
    own = template_of(folder)
    if own != base and declared is None:
        at = len(_common_prefix(own or "", base or ""))
        raise ReleaseError(
            f"The chat template differs from the base model's from character {at} on.",
            hint="Take the base model's, or say under release.template_change why it was changed.",
        )


def _configured(path: Path) -> str | None:
    """Return the default template of a tokenizer config, which may hold one text or several with names."""
    if not path.is_file():
        return None
    value: Any = read_object(path).get("chat_template")
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict)]
        value = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    return None if value is None else str(value)


def _common_prefix(left: str, right: str) -> str:
    length = next(
        (at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    return left[:length]
