"""List what weakens a benchmark's numbers, in lines that stand before them: on the terminal, in JSON and on cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gshf_release.data.results import Cell, find, rows_of, select
from gshf_release.evaluation.metrics import ANSWERED_BY, doubt
from gshf_release.evaluation.verdicts.reading import DOUBTS, OTHER_MODEL, SEVERAL_MODELS, THOUGHT
from gshf_release.report import partial


def notices(cells: Sequence[Cell]) -> list[str]:
    """Return the lines: what is missing, then what makes one doubt the verdicts."""
    return [*partial.notices(cells), *doubtful(cells)]


def doubtful(cells: Sequence[Cell]) -> list[str]:
    """Return a line for each benchmark, judge and row whose verdicts leave doubts. Thinking that was set aside leaves none."""
    lines = []
    for group in partial.groups(cells):
        chosen = group.of(cells)
        for row in rows_of(chosen):
            found = {what: find(chosen, row=row, metric=doubt(what)) for what in DOUBTS if what != THOUGHT}
            told = [
                f"{entry.value:.0f} of {entry.n} judgments: {what}"
                for what, entry in found.items()
                if entry and entry.value
            ]
            if told:
                lines.append(f"Warning: {group.name}, {row}: {'; '.join(told)}{_models(chosen, row, found)}.")
    return lines


def _models(cells: Sequence[Cell], row: str, doubts: Mapping[str, Cell | None]) -> str:
    """Return the models that made a row's judgments, where that is in doubt."""
    if not (doubts[OTHER_MODEL] or doubts[SEVERAL_MODELS]):
        return ""
    made = [entry for entry in select(cells, row=row) if entry.metric.startswith(ANSWERED_BY)]
    return " (" + ", ".join(f"{entry.metric} {entry.value:.0f}" for entry in made) + ")"
