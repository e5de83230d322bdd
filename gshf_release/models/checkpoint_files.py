"""The JSON files of a checkpoint folder: reading them, and refusing a folder whose files name code.

A folder from anywhere may say `auto_map`: which Python file beside the weights, or in which repository, is to be run when it is
loaded. Nothing here runs such code or asks whether it may; a model that needs it is refused before any work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gshf_release.data import documents
from gshf_release.errors import CheckpointError

NEVER_REMOTE: dict[str, Any] = {"trust_remote_code": False}
"""Options of every `from_pretrained`: left unsaid, transformers asks on the terminal whether to run a model's code."""
NAMING_CODE = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "generation_config.json",
)
KERNELS = ("attn_implementation", "_attn_implementation")
"""Keys of a config that may name a repository of compiled kernels, which the library would fetch and load."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or holds no object; names the file.
    """
    try:
        value = documents.read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object.")
    return value


def refuse_code(folder: Path) -> None:
    """Refuse a checkpoint folder that is loaded by code of its own, or with pickled weights alone.

    Raises:
        CheckpointError: Names the file and what it names; or a file is damaged.
    """
    for name in NAMING_CODE:
        path = folder / name
        if not path.is_file():
            continue
        found = _code_in(read_object(path))
        if found:
            raise CheckpointError(
                f"{path} names custom code ({found}), which is never run here.",
                hint="Take a model whose architecture transformers has; if it has this one, remove the key from the file.",
            )


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose only weights are pickles, which are programs.

    Raises:
        CheckpointError: Names the file and the way out.
    """
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{pickles[0]} is a pickle, which may hold code, and there are no safetensors weights beside it.",
            hint="Convert it where you trust it: load it with transformers and call save_pretrained.",
        )


def _code_in(document: Any) -> str:
    """Return in words where a config names code, at any depth; empty if nowhere."""
    waiting = [document]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            if current.get("auto_map"):
                return f"auto_map: {str(current['auto_map'])[:80]}"
            for key in KERNELS:
                if isinstance(current.get(key), str) and "/" in current[key]:
                    return f"{key}: {current[key][:80]}"
        if isinstance(current, dict | list):
            waiting += current.values() if isinstance(current, dict) else current
    return ""
