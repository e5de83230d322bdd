"""Assumptions: lines of a recipe file marked `# assumption`, which travel into the run and onto its cards.

A recipe as it is read knows no comments. `train` keeps the marked lines beside the run, and a card shows those whose value is
still the run's: an override takes the assumption with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from gshf_release.errors import RunError
from gshf_release.recipe import Recipe
from gshf_release.run.directory import RunDirectory, read_json, write_json

FILE = "assumptions.json"
MARK = re.compile(r"#\s*assumption\s*(?::\s*(.*)|$)")


@dataclass(frozen=True, slots=True)
class Assumption:
    """A value of the recipe that no source states."""

    key: str
    """Dotted, such as `pairs.cut`; of a section, or of the first key on its line."""
    value: Any
    reason: str


def read(path: Path) -> list[Assumption]:
    """Return the assumptions in a recipe file, in its order.

    The mark stands behind a value, or in lines of their own above it; there, the comment may go on over several lines.
    """
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = dict(_keys(root)) if isinstance(root, yaml.MappingNode) else {}
    values = yaml.safe_load(text)
    ends = _ends_of_scalars(root) if root is not None else {}
    found, waiting = [], ""
    for number, line in enumerate(text.splitlines()):
        bare = line.strip()
        start = ends.get(number, 0)
        marked = MARK.search(line, start) if start >= 0 else None
        if bare.startswith("#"):
            if marked or waiting:
                waiting = f"{waiting} {_reason(marked) if marked else bare.lstrip('#').strip()}".strip()
        elif number in keys:
            reasons = [reason for reason in (waiting, _reason(marked) if marked else "") if reason]
            if reasons:
                found.append(Assumption(keys[number], _value(values, keys[number]), "; ".join(reasons)))
            waiting = ""
    return found


def record(run: RunDirectory, source: Path) -> None:
    """Keep the assumptions of the recipe file that a run was started from; the run's own copy has no comments to read."""
    if run.path.resolve() not in source.resolve().parents:
        write_json(run.path / FILE, {"assumptions": [asdict(entry) for entry in read(source)]})


def load(run: RunDirectory, recipe: Recipe) -> list[Assumption]:
    """Return the assumptions of a run that still hold for its recipe.

    Raises:
        RunError: The file that holds them is damaged.
    """
    path = run.path / FILE
    try:
        recorded = [Assumption(**entry) for entry in read_json(path)["assumptions"]] if path.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged.", hint="Run the command that made it again.") from error
    return holding(recorded, recipe)


def holding(assumptions: Sequence[Assumption], recipe: Recipe) -> list[Assumption]:
    """Return the assumptions whose value is the recipe's; those of whole sections hold always."""
    document = recipe.model_dump(mode="json")
    return [
        entry for entry in assumptions if isinstance(entry.value, dict) or _value(document, entry.key) == entry.value
    ]


def _reason(marked: re.Match[str]) -> str:
    return (marked.group(1) or "").strip() or "no reason given"


def _keys(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[int, str]]:
    """Yield `(line, dotted key)`, inner keys first, so that the outermost key of a line remains."""
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{name}.")
        yield key.start_mark.line, name


def _ends_of_scalars(node: yaml.Node) -> dict[int, int]:
    """Return the column behind the last text of each line; -1 for lines inside a text of several lines."""
    ends: dict[int, int] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, yaml.MappingNode):
            waiting += [part for pair in current.value for part in pair]
        elif isinstance(current, yaml.SequenceNode):
            waiting += current.value
        else:
            first, last = current.start_mark.line, current.end_mark.line
            block = getattr(current, "style", None) in ("|", ">")
            ends.update(dict.fromkeys(range(first + 1 if block else first, last), -1))
            if not block:
                ends[last] = max(ends.get(last, 0), current.end_mark.column)
    return ends


def _value(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document
