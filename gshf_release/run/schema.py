"""Check the shape of what a run stores about itself: plan, manifests, journal. A run from elsewhere is data.

A name in these documents becomes a path below the run, never one outside of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gshf_release.run.stage import Stage, check_graph

MOST_SHARDS = 100_000
REQUIRED = {
    "started": ("stage",),
    "engine started": ("stage", "seconds"),
    "finished": ("stage", "seconds"),
    "command begins": ("session",),
    "command ends": ("session",),
}
"""What entries of the journal hold that others are computed from."""
TEXTS, NUMBERS = ("stage", "session"), ("time", "seconds", "cost")
OPTIONAL_NUMBERS = ("cost",)


def is_inner_path(name: Any, *, itself: bool = False) -> bool:
    """Return whether a text is a relative path that stays below its folder, printable and in one spelling.

    Args:
        name: Of a file or folder, with forward slashes.
        itself: Whether the empty text counts, which stands for the folder itself.
    """
    if not isinstance(name, str) or not name.isprintable() or "\\" in name:
        return False
    return (itself and not name) or all(part not in ("", ".", "..") for part in name.split("/"))


def stages(document: Mapping[str, Any]) -> list[Stage]:
    """Return the stages of a `plan.json`.

    Raises:
        ValueError: Says in one line which stage is wrong.
    """
    entries = document.get("stages")
    if not isinstance(entries, list):
        raise ValueError("it has no list of stages")
    found = [_stage(entry, number) for number, entry in enumerate(entries, 1)]
    check_graph(found)
    return found


def _stage(entry: Any, number: int) -> Stage:
    try:
        stage = Stage.from_json(entry)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"its stage {number} is no stage") from error
    paths = [stage.name, *stage.outputs, *stage.after]
    paths += [name for item in stage.inputs for name in (item.stage, item.file)]
    texts = [*stage.keys, stage.identity, stage.kind, stage.part, stage.work, stage.numbers, stage.runs_in]
    if not all(is_inner_path(name) for name in paths):
        raise ValueError(f"its stage {number} names something that is no path inside the run")
    whole = isinstance(stage.shards, int) and 1 <= stage.shards <= MOST_SHARDS
    scopes = all(item.scope in ("all", "shard") for item in stage.inputs)
    if not (whole and scopes and all(map(_is_text, texts)) and isinstance(stage.parameters, dict)):
        raise ValueError(f"its stage {number} is no stage")
    return stage


def is_manifest(document: Mapping[str, Any]) -> bool:
    """Return whether a document has what is read of a task's manifest."""
    inputs, outputs, keys = document.get("inputs"), document.get("outputs"), document.get("keys", {})
    return (
        all(_is_text(document.get(name)) for name in ("stage", "fingerprint"))
        and isinstance(keys, dict)
        and isinstance(inputs, dict)
        and all(map(_is_text, inputs.values()))
        and isinstance(outputs, dict)
        and all(is_inner_path(name) and _is_output(output) for name, output in outputs.items())
        and (document.get("cells") is None or _is_text(document["cells"]))
        and _are_texts(document.get("pruned", []))
    )


def _is_output(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("sha256")) or not isinstance(value.get("files"), dict):
        return False
    return all(is_inner_path(name, itself=True) and _is_text(sha256) for name, sha256 in value["files"].items())


def is_journal_entry(value: Any) -> bool:
    """Return whether a value is a whole entry of the journal, with the texts and numbers that are read of its kind."""
    if not isinstance(value, dict) or not _is_text(value.get("event")) or not _is_number(value.get("time")):
        return False
    parts = value.get("parts", {})
    return (
        all(name in value for name in REQUIRED.get(value["event"], ()))
        and all(_is_text(value[name]) for name in TEXTS if name in value)
        and all(
            _is_number(value[name]) or (value[name] is None and name in OPTIONAL_NUMBERS)
            for name in NUMBERS
            if name in value
        )
        and isinstance(parts, dict)
        and all(map(_is_number, parts.values()))
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    """Return whether a value is a text that can be written: half an emoji cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -1e15 < value < 1e15 and math.isfinite(value)
