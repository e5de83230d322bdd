"""Benchmarks of which a part alone was measured: said before the number, beside it, and never published as a whole one.

A part comes about by `--limit`, by answers that a file does not have, by failed judgments. A cell's `n` is then below its `of`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.data.results import Cell, find, rows_of, select
from gshf_release.evaluation.metrics import FAILED

MARKS = ("LC win rate", "average", "adjusted win rate")
"""Each benchmark measures one of these; its `n` and `of` speak for the row."""
SIZES = {"alpaca_eval_2": 805, "mt_bench": 160}
"""Judgments of the published benchmarks, for cells of before `of` was recorded."""
WHOLE = 0.98
"""Share of the judgments that a row must have although all were asked for: by default, judges may fail on so few only."""
ADVICE = "A number of a part does not compare with numbers of the whole benchmark."


def groups(cells: Sequence[Cell]) -> list[tuple[str, str, str, str]]:
    """Return `(table, judge, baseline, mark)` of everything that benchmarks measured, in order."""
    found = [
        (entry.table, entry.judge, entry.baseline, entry.metric)
        for entry in cells
        if entry.metric in MARKS and entry.origin == "measured"
    ]
    return list(dict.fromkeys(found))


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
    for table, judge, baseline, _ in groups(cells):
        found = shortfalls(select(cells, table=table, judge=judge, baseline=baseline))
        told = ", ".join(f"{row} {count} judgments" for row, count in found.items())
        if found:
            lines.append(f"Incomplete: {table}, judged by {judge}: {told}. {ADVICE}")
    return lines


def number_of(cells: Sequence[Cell], row: str) -> Cell | None:
    """Return the cell whose `n` and `of` speak for a row of one benchmark, judge and baseline."""
    entry = next((entry for entry in select(cells, row=row) if entry.metric in MARKS), None)
    if entry is None or entry.of is not None or entry.table not in SIZES:
        return entry
    return entry.model_copy(update={"of": SIZES[entry.table]})
