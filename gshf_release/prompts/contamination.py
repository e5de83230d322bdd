"""Whether the prompts that a run uses are too close to those of a benchmark, and which benchmarks could not be looked at.

`gshf-release prompts` keeps benchmark prompts out of what it writes. A file that a user brings may hold some all the same, so
every run compares the prompts of all its roles with the benchmarks' by the tests of `decontamination.py`. Nothing is removed
here: the split of a run must not hang on which files a machine has. What was found is counted in the results and written as a
file that `prompts.exclude` of another run takes. A benchmark whose file is not on this machine is said to be unchecked; the
network is not asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from gshf_release.benchmark_data import BENCHMARKS, find
from gshf_release.errors import DataError
from gshf_release.prompts import used
from gshf_release.prompts.decontamination import Contamination, Decontaminator, load
from gshf_release.prompts.used import Used
from gshf_release.results import Cell
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json, write_json
from gshf_release.run.stage import Input, Stage

STAGE = "prompts/contamination"
FACTS, CONTAMINATED = "contamination.json", "contaminated.jsonl"
TABLE = "contamination"
UNCHECKED = "NOT CHECKED"
SHOWN = 5
"""Prompts that the note of a cell names."""


class Looked(NamedTuple):
    """What the comparison came to."""

    checked: list[str]
    unchecked: dict[str, str]
    """`{benchmark: why not}`."""
    hits: list[Contamination | None]
    """One entry a prompt."""


def declare() -> Stage:
    """Declare the comparison. Which files a machine has is no part of its fingerprint: what was looked at once stays so."""
    return Stage(
        name=STAGE,
        work="gshf_release.prompts.contamination:write",
        inputs=(Input(used.STAGE, used.FILE),),
        outputs=(FACTS, CONTAMINATED),
        numbers="gshf_release.prompts.contamination:numbers",
    )


def compare(texts: Sequence[str]) -> Looked:
    """Return which texts are too close to a prompt of a benchmark whose file is on this machine."""
    checked, unchecked = [], {}
    for name, (file, _) in BENCHMARKS.items():
        try:
            missing = "" if find(file) is not None else f"{file.name} is not on this machine"
        except DataError as error:  # another version of the file; it must not stop a training run
            missing = error.message.rstrip(".")
        if missing:
            unchecked[name] = missing
        else:
            checked.append(name)
    hits: list[Contamination | None] = [None] * len(texts)
    if checked:
        hits = Decontaminator(load(checked)).check(texts)
    return Looked(checked, unchecked, hits)


def write(context: StageContext) -> None:
    """Write what was found, and the prompts themselves."""
    rows = Used.read(context.input(used.STAGE, used.FILE))
    looked = compare([used.user_text(row.messages) for row in rows])
    found = [(row, hit) for row, hit in zip(rows, looked.hits, strict=True) if hit is not None]
    document = {
        "prompts": len(rows),
        "checked": looked.checked,
        "unchecked": looked.unchecked,
        "found": [
            {"prompt_id": row.prompt_id, "role": row.role, "reason": hit.reason, "of": hit.key} for row, hit in found
        ],
    }
    write_json(context.output(FACTS), document)
    lines = [json.dumps({"messages": row.messages}, ensure_ascii=False) for row, _ in found]
    context.output(CONTAMINATED).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name, reason in looked.unchecked.items():
        context.say(f"The prompts are NOT compared with {name}: {reason}.")
    if found:
        context.say(
            f"{len(found)} of {len(rows)} prompts are too close to a benchmark's; prompts.exclude of another run takes "
            f"{context.run.path / STAGE / CONTAMINATED}."
        )


def numbers(context: StageContext) -> list[Cell]:
    """Return how many prompts are too close to each benchmark's, and which benchmarks were not looked at."""
    path = context.output(FACTS)
    document = read_json(path)
    place = {"table": TABLE, "row": "prompts", "artefact": context.run.relative(path), "n": document["prompts"]}
    cells = []
    for name in document["checked"]:
        keys = sorted({entry["of"] for entry in document["found"] if entry["of"].partition("/")[0] == name})
        count = sum(entry["of"].partition("/")[0] == name for entry in document["found"])
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        cells.append(Cell(metric=f"too close to {name}", value=count, note=", ".join(keys[:SHOWN]) + more, **place))
    for name, reason in document["unchecked"].items():
        note = f"{UNCHECKED}: {reason}"
        cells.append(Cell(metric=f"too close to {name}", value=None, note=note, **place))
    return cells
