"""Benchmarks of which a part alone was measured: said before the number, beside it, and never published as a whole one.

A part comes about by `--limit`, by answers that a file does not have, by failed judgments. A cell's `n` is then below its `of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gshf_release.data.results import Cell, find, rows_of, select
from gshf_release.evaluation.metrics import FAILED

MARKS = ("LC win rate", "average", "adjusted win rate")
"""Each benchmark measures one of these; its `n` and `of` speak for the row."""
SIZES = {"alpaca_eval_2": 805, "mt_bench": 160}
"""Judgments of the published benchmarks, for cells of before `of` was recorded."""
WHOLE = 0.98
"""Share of the judgments that a row must have although all were asked for: by default, judges may fail on so few only."""
ADVICE = "A number of a part does not compare with numbers of the whole benchmark."


class BenchmarkGroup(NamedTuple):
    """Names what one judge measured of one benchmark against one baseline."""

    table: str
    judge: str
    baseline: str
    mark: str
    """Which of `MARKS` it measured."""

    @property
    def name(self) -> str:
        """The benchmark and its judge, in words."""
        return f"{self.table}, judged by {self.judge}"

    @property
    def title(self) -> str:
        """Its name with the baseline, if there is one."""
        return self.name + (f" against {self.baseline}" if self.baseline else "")

    def of(self, cells: Sequence[Cell], **wanted: str) -> list[Cell]:
        """Return its cells whose other fields equal `wanted`."""
        return select(cells, table=self.table, judge=self.judge, baseline=self.baseline, **wanted)


def groups(cells: Sequence[Cell]) -> list[BenchmarkGroup]:
    """Return everything that benchmarks measured, in order."""
    measured = [entry for entry in cells if entry.metric in MARKS and entry.origin == "measured"]
    return list(
        dict.fromkeys(BenchmarkGroup(entry.table, entry.judge, entry.baseline, entry.metric) for entry in measured)
    )


def is_partial(cells: Sequence[Cell], row: str) -> bool:
    """Return whether a row's numbers are of a part: questions were left out, or more judgments failed than may.

    Args:
        cells: Of one benchmark, judge and baseline.
        row: Whose.
    """
    number = number_of(cells, row)
    if number is None or number.of is None:
        return False
    asked = find(cells, row=row, metric=FAILED)
    return (number.n or 0) < WHOLE * number.of or (asked is not None and (asked.n or 0) < number.of)


def shortfalls(cells: Sequence[Cell]) -> dict[str, str]:
    """Return `{row: "500 of 805"}` of those rows of one benchmark, judge and baseline that are partial."""
    counts = {row: number_of(cells, row) for row in rows_of(cells) if is_partial(cells, row)}
    return {row: entry.count for row, entry in counts.items() if entry is not None}


def mark(cells: Sequence[Cell]) -> str:
    """Return what stands behind the title of a table: ` (incomplete: 500 of 805)`, or nothing for a whole benchmark."""
    found = shortfalls(cells)
    if not found:
        return ""
    counts = list(dict.fromkeys(found.values()))
    everyone = len(found) == len({row for row in rows_of(cells) if number_of(cells, row) is not None})
    told = counts[0] if everyone and len(counts) == 1 else ", ".join(f"{row} {count}" for row, count in found.items())
    return f" (incomplete: {told})"


def notices(cells: Sequence[Cell]) -> list[str]:
    """Return a line for each benchmark and judge that has partial rows, to stand before every number."""
    lines = []
    for group in groups(cells):
        found = shortfalls(group.of(cells))
        told = ", ".join(f"{row} {count} judgments" for row, count in found.items())
        if found:
            lines.append(f"Incomplete: {group.name}: {told}. {ADVICE}")
    return lines


def number_of(cells: Sequence[Cell], row: str) -> Cell | None:
    """Return the cell whose `n` and `of` speak for a row of one benchmark, judge and baseline."""
    entry = next((entry for entry in select(cells, row=row) if entry.metric in MARKS), None)
    if entry is None or entry.of is not None or entry.table not in SIZES:
        return entry
    return entry.model_copy(update={"of": SIZES[entry.table]})
