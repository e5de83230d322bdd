"""What was measured anew, rung by rung: from judgments, from answers, from a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gshf_release.data.results import Cell, read_cells, rows_of
from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval import data as borrowed
from gshf_release.evaluation.alpaca_eval import scoring
from gshf_release.evaluation.alpaca_eval.annotations import groups
from gshf_release.evaluation.alpaca_eval.annotations import read as read_annotations
from gshf_release.evaluation.calibration.replay import read_outputs
from gshf_release.evaluation.metrics import doubt
from gshf_release.evaluation.mt_bench import judgments as ratings
from gshf_release.evaluation.mt_bench import scoring as grades
from gshf_release.evaluation.reproduction.claims import Benchmark, Metric, Rung
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL

CALIBRATED = "calibrated "
"""Before the metric of a cell whose value a calibration turned into an official one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One number, or why there is none."""

    rung: Rung
    row: str
    benchmark: Benchmark
    metric: Metric
    value: float | None
    judge: str = ""
    """Empty for what no judge had a part in."""
    error: float = 0.0
    """Standard error beyond the rung's noise: of a calibration."""
    calibrated: bool = False
    why: str = ""
    """Why there is no value."""
    place: str = ""
    model: str | None = None
    """What the file or run calls its model: empty if it names none, None if it was not looked at."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or run, and the row that it speaks of; None takes the row itself from it."""

    row: str
    path: Path


def from_judgments(source: Source, rung: Rung, data: borrowed.AlpacaEvalData) -> list[Measured]:
    """Return what stored judgments give: of MT-Bench from a .jsonl file, else of AlpacaEval 2; a part of the set gives nothing.

    Raises:
        DataError: The file is broken, or holds more than one model or judge.
    """
    place = str(source.path)
    if ".jsonl" in source.path.name:
        singles, _ = ratings.read(source.path)
        found = grades.score(singles)
        if len(found) != 1:
            raise DataError(f"{place} holds ratings of {len(found)} models and judges.", hint="Give those of one.")
        (one,) = found
        measured = Measured(
            rung, source.row, "mt_bench", "average", one.average, one.judge, place=place, model=one.model
        )
        if one.average is None:
            return [_without(measured, "no rating could be read")]
        size = one.n + one.n_unparsed + one.n_missing
        if one.n < scoring.COMPLETE * size:
            return [_without(measured, f"only {one.n} of {size} judgments are in {source.path.name}")]
        return [measured]
    rows = read_annotations(source.path)
    if len(groups(rows)) != 1:
        raise DataError(f"{place} holds several models, judges or baselines.", hint="Give the judgments of one.")
    score = scoring.score(rows, data)
    values: dict[Metric, float | None] = {
        "win rate": score.win_rate,
        "standard error": score.standard_error,
        "LC win rate": score.length_controlled_winrate if score.lc_label == scoring.PUBLISHED else None,
        "length": score.avg_length,
    }
    size = score.n_total + (score.n_missing or 0)
    part = not data.missing and score.n_total < scoring.COMPLETE * size  # without the set itself nobody knows its size
    found_values = []
    for metric, value in values.items():
        judge = "" if metric == "length" else score.judge
        entry = Measured(rung, source.row, "alpaca_eval_2", metric, value, judge, place=place, model=score.model)
        if part:
            entry = _without(entry, f"only {score.n_total} of {size} instructions are judged in {source.path.name}")
        elif value is None:
            entry = _without(entry, score.lc_reason or "it has no value")
        found_values.append(entry)
    return found_values


def from_outputs(source: Source) -> list[Measured]:
    """Return what answers alone give: their mean length in characters, cut to an integer as published.

    Raises:
        DataError: The file is broken.
    """
    answers, model = read_outputs(source.path)
    length = sum(len(text) for text in answers.values()) // len(answers)
    place = str(source.path)
    return [Measured("answers", source.row, "alpaca_eval_2", "length", length, place=place, model=model)]


def changed_answers(outputs: Path, judged: Path) -> int:
    """Return how many judged answers are not those of a `model_outputs.json`.

    Raises:
        DataError: A file is broken.
    """
    answers, _ = read_outputs(outputs)
    return sum(answers.get(row.instruction) != row.output_2 for row in read_annotations(judged))


def from_run(source: Source, rung: Rung) -> list[Measured]:
    """Return what a run's `results.json` gives for the rows of claims; an evaluation of one model gives it for `source.row`.

    Raises:
        DataError: The run has no results, or they are damaged.
    """
    path = source.path / "results.json"
    if not path.is_file():
        raise DataError(f"{source.path} has no results.json.", hint=f"Run: gshf-release eval {source.path}")
    found: list[Measured] = []
    cells = [cell for cell in read_cells(path) if cell.origin == "measured"]
    benchmarks: dict[Benchmark, Sequence[Metric]] = {
        "alpaca_eval_2": ("win rate", "LC win rate", "length"),
        "mt_bench": ("average",),
    }
    for benchmark, metrics in benchmarks.items():
        own = [cell for cell in cells if cell.table == benchmark]
        rows = rows_of(own)
        substituted = {(cell.row, cell.judge) for cell in own if cell.metric == doubt(OTHER_MODEL) and cell.value}
        for cell in own:
            metric = next((m for m in metrics if cell.metric in (m, CALIBRATED + m)), None)
            if metric is None:
                continue
            row = source.row if source.row and len(rows) == 1 else cell.row
            model = None if row == cell.row else cell.row
            entries = [_of_cell(cell, rung, row, benchmark, metric, str(path), model)]
            if metric == "win rate" and cell.metric == metric and cell.standard_error is not None:
                error = cell.model_copy(update={"value": cell.standard_error})
                entries.append(_of_cell(error, rung, row, benchmark, "standard error", str(path), model))
            made_by_another = (cell.row, cell.judge) in substituted and metric != "length"
            found += [
                _without(entry, f"judgments were {OTHER_MODEL}") if made_by_another else entry for entry in entries
            ]
    return found


def _of_cell(
    cell: Cell, rung: Rung, row: str, benchmark: Benchmark, metric: Metric, place: str, model: str | None
) -> Measured:
    calibrated = cell.metric.startswith(CALIBRATED)
    entry = Measured(
        rung,
        row,
        benchmark,
        metric,
        cell.value,
        judge="" if metric == "length" else cell.judge,
        error=(cell.standard_error or 0.0) if calibrated else 0.0,
        calibrated=calibrated,
        place=place,
        model=model,
    )
    if cell.value is None:
        return _without(entry, cell.note or "it has no value")
    if cell.of is not None and (cell.n or 0) < scoring.COMPLETE * cell.of:
        return _without(entry, f"only {cell.count} judgments were made in {place}")
    return entry


def _without(entry: Measured, why: str) -> Measured:
    return replace(entry, value=None, why=why)
