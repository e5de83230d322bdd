"""Find prompts of a run that are too close to a benchmark's, and name the benchmarks that could not be compared.

`gshf-release prompts` keeps benchmark prompts out of what it writes. A file that a user brings may hold some all the same, so
every run compares the prompts of all its roles, and those of preference pairs from elsewhere, with the benchmarks' by the tests
of `decontamination.py`. Nothing is removed here: the split of a run must not hang on which files a machine has. What was found
is counted in the results and written as a file that `prompts.exclude` of another run takes. A benchmark whose file is not on
this machine is said to be unchecked; the network is not asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from gshf_release.data.results import Cell
from gshf_release.errors import DataError
from gshf_release.prompts import usage
from gshf_release.prompts.benchmark_files import BENCHMARKS, find
from gshf_release.prompts.decontamination import Contamination, Decontaminator, load
from gshf_release.prompts.usage import PromptUse
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json, write_json
from gshf_release.run.stage import Input, Stage

IDENTITY = "check-contamination/1"
STAGE = "prompts/contamination"
FACTS, CONTAMINATED = "contamination.json", "contaminated.jsonl"
TABLE = "contamination"
UNCHECKED = "NOT CHECKED"
TOO_CLOSE = "too close to "
PROMPTS, OFFLINE = "prompts", "offline pairs"
PARTS = {
    PROMPTS: ("prompts", "prompts.exclude of another run takes"),
    OFFLINE: ("prompts of pairs.offline", "take their pairs out of its file, they are listed in"),
}
"""`{row of the results: (what it counts, what to do about those that are too close)}`."""
SHOWN = 5
"""Prompts that the note of a cell names."""


class ContaminationReport(NamedTuple):
    """Records what the comparison came to."""

    checked: list[str]
    unchecked: dict[str, str]
    """`{benchmark: why not}`."""
    hits: list[Contamination | None]
    """One entry a prompt."""


def declare_contamination() -> Stage:
    """Declare the comparison. Which files a machine has is no part of its fingerprint: what was looked at once stays so."""
    return Stage(
        name=STAGE,
        identity=IDENTITY,
        work="gshf_release.prompts.contamination:write_contamination",
        kind="other",
        inputs=(Input(usage.STAGE, usage.FILE),),
        outputs=(FACTS, CONTAMINATED),
        numbers="gshf_release.prompts.contamination:contamination_cells",
    )


def compare(texts: Sequence[str]) -> ContaminationReport:
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
    return ContaminationReport(checked, unchecked, hits)


def write_contamination(context: StageContext) -> None:
    """Write what was found, and the prompts themselves."""
    rows = PromptUse.read(context.input(usage.STAGE, usage.FILE))
    looked = compare([usage.user_text(row.messages) for row in rows])
    found = [(row, hit) for row, hit in zip(rows, looked.hits, strict=True) if hit is not None]
    document = {
        **{part: sum(_part(row.role) == part for row in rows) for part in PARTS},
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
    for part, (what, way_out) in PARTS.items():
        count = sum(_part(row.role) == part for row, _ in found)
        if count:
            path = context.run.path / STAGE / CONTAMINATED
            context.say(f"{count} of {document[part]} {what} are too close to a benchmark's; {way_out} {path}.")


def contamination_cells(context: StageContext) -> list[Cell]:
    """Return how many prompts are too close to each benchmark's, and which benchmarks were not looked at."""
    path = context.output(FACTS)
    document = read_json(path)
    artefact = context.run.relative(path)
    cells: list[Cell] = []
    for part in PARTS:
        if document.get(part):
            cells += _cells(document, part, {"table": TABLE, "row": part, "artefact": artefact, "n": document[part]})
    return cells


def benchmarks(cells: Sequence[Cell], *, checked: bool) -> list[str]:
    """Return the benchmarks that the prompts were compared with, or those that they were not, as the cells say."""
    found = [cell for cell in cells if cell.table == TABLE and (cell.value is not None) == checked]
    return list(dict.fromkeys(cell.metric.removeprefix(TOO_CLOSE) for cell in found))


def _part(role: str) -> str:
    return OFFLINE if role == usage.OFFLINE else PROMPTS


def _cells(document: dict[str, Any], part: str, place: dict[str, Any]) -> list[Cell]:
    cells = []
    found = [entry["of"] for entry in document["found"] if _part(entry["role"]) == part]
    for name in document["checked"]:
        of_it = [key for key in found if key.partition("/")[0] == name]
        keys = sorted(set(of_it))
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        note = ", ".join(keys[:SHOWN]) + more
        cells.append(Cell(metric=f"{TOO_CLOSE}{name}", value=len(of_it), note=note, **place))
    for name, reason in document["unchecked"].items():
        note = f"{UNCHECKED}: {reason}"
        cells.append(Cell(metric=f"{TOO_CLOSE}{name}", value=None, note=note, **place))
    return cells
