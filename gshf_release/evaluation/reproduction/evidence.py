"""Measure published numbers anew: from judgments, from answers, from a run; and tell of what model those are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
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
from gshf_release.evaluation.reproduction.claims import Benchmark, Measured, Metric, Reported, Rung
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL

CALIBRATED = "calibrated "
"""Before the metric of a cell whose value a calibration turned into an official one."""
METRICS: dict[Benchmark, tuple[Metric, ...]] = {
    "alpaca_eval_2": ("win rate", "LC win rate", "length"),
    "mt_bench": ("average",),
}
"""What a run's results have of each benchmark."""
FILES: tuple[Rung, ...] = ("judgments", "answers")
"""Rungs whose evidence is a file that names its model; a run has the name of a folder, which proves nothing."""


def from_judgments(row: str, path: Path, rung: Rung, data: borrowed.AlpacaEvalData) -> list[Measured]:
    """Return what stored judgments give: of MT-Bench from a .jsonl file, else of AlpacaEval 2; a part of the set gives nothing.

    Raises:
        DataError: The file is broken, or holds more than one model or judge.
    """
    return _from_ratings(row, path, rung) if ".jsonl" in path.name else _from_comparisons(row, path, rung, data)


def _from_ratings(row: str, path: Path, rung: Rung) -> list[Measured]:
    singles, _ = ratings.read(path)
    found = grades.score(singles)
    if len(found) != 1:
        raise DataError(f"{path} holds ratings of {len(found)} models and judges.", hint="Give those of one.")
    (one,) = found
    entry = Measured(rung, row, "mt_bench", "average", one.average, one.judge, place=str(path), model=one.model)
    if one.average is None:
        return [entry.without_value("no rating could be read")]
    return _if_complete([entry], one.n, one.n + one.n_unparsed + one.n_missing, path)


def _from_comparisons(row: str, path: Path, rung: Rung, data: borrowed.AlpacaEvalData) -> list[Measured]:
    rows = read_annotations(path)
    if len(groups(rows)) != 1:
        raise DataError(f"{path} holds several models, judges or baselines.", hint="Give the judgments of one.")
    score = scoring.score(rows, data)
    values: dict[Metric, float | None] = {
        "win rate": score.win_rate,
        "standard error": score.standard_error,
        "LC win rate": score.length_controlled_winrate if score.lc_label == scoring.PUBLISHED else None,
        "length": score.avg_length,
    }
    found = []
    for metric, value in values.items():
        judge = "" if metric == "length" else score.judge
        entry = Measured(rung, row, "alpaca_eval_2", metric, value, judge, place=str(path), model=score.model)
        found.append(entry if value is not None else entry.without_value(score.lc_reason or "it has no value"))
    missing = 0 if data.missing else score.n_missing or 0  # without the set itself nobody knows its size
    return _if_complete(found, score.n_total, score.n_total + missing, path)


def _if_complete(found: Sequence[Measured], n: int, size: int, path: Path) -> list[Measured]:
    why = "" if n >= scoring.COMPLETE * size else f"only {n} of {size} judgments are in {path.name}"
    return [entry.without_value(why) if why else entry for entry in found]


def from_outputs(row: str, path: Path) -> list[Measured]:
    """Return what answers alone give: their mean length in characters, cut to an integer as published.

    Raises:
        DataError: The file is broken.
    """
    answers, model = read_outputs(path)
    length = sum(map(len, answers.values())) // len(answers)
    return [Measured("answers", row, "alpaca_eval_2", "length", length, place=str(path), model=model)]


def changed_answers(outputs: Path, judged: Path) -> int:
    """Return how many judged answers are not those of a `model_outputs.json`.

    Raises:
        DataError: A file is broken.
    """
    answers, _ = read_outputs(outputs)
    return sum(answers.get(row.instruction) != row.output_2 for row in read_annotations(judged))


def from_run(row: str, folder: Path, rung: Rung) -> list[Measured]:
    """Return what a run's `results.json` gives for the rows of claims; an evaluation of one model gives it for `row`.

    Raises:
        DataError: The run has no results, or they are damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(f"{folder} has no results.json.", hint=f"Run: gshf-release eval {folder}")
    found: list[Measured] = []
    cells = [cell for cell in read_cells(path) if cell.origin == "measured"]
    for benchmark, metrics in METRICS.items():
        own = [cell for cell in cells if cell.table == benchmark]
        alone = len(rows_of(own)) == 1
        substituted = {(cell.row, cell.judge) for cell in own if cell.metric == doubt(OTHER_MODEL) and cell.value}
        for cell in own:
            metric = next((m for m in metrics if cell.metric in (m, CALIBRATED + m)), None)
            if metric is None:
                continue
            name = row if row and alone else cell.row
            entries = _of_cell(cell, Measured(rung, name, benchmark, metric, cell.value, place=str(path)))
            if metric != "length" and (cell.row, cell.judge) in substituted:
                entries = [entry.without_value(f"judgments were {OTHER_MODEL}") for entry in entries]
            found += entries
    return found


def _of_cell(cell: Cell, entry: Measured) -> list[Measured]:
    """Return a cell's value, and its standard error where that is claimed too, or why they cannot be compared."""
    calibrated = cell.metric.startswith(CALIBRATED)
    entry = replace(
        entry,
        judge="" if entry.metric == "length" else cell.judge,
        error=(cell.standard_error or 0.0) if calibrated else 0.0,
        calibrated=calibrated,
        model=None if entry.row == cell.row else cell.row,
    )
    found = [entry]
    if cell.metric == "win rate" and cell.standard_error is not None:
        found.append(replace(entry, metric="standard error", value=cell.standard_error))
    if cell.value is None:
        return [each.without_value(cell.note or "it has no value") for each in found]
    if cell.of is not None and (cell.n or 0) < scoring.COMPLETE * cell.of:
        return [each.without_value(f"only {cell.count} judgments were made in {entry.place}") for each in found]
    return found


def check_models(reported: Reported, measured: Sequence[Measured]) -> list[str]:
    """Return a sentence for every file or run whose model cannot be told from its name; another model's numbers say nothing.

    Raises:
        DataError: A file names another model than the claims are about; the message has both names.
    """
    found = {(entry.place, entry.row): entry for entry in measured if entry.model is not None}
    return [line for entry in found.values() if (line := _check_model(reported, entry))]


def _check_model(reported: Reported, entry: Measured) -> str:
    names, model = reported.names_of(entry.row), str(entry.model)
    claimed = f"the claims on {entry.row} are about {names[0] if names else 'a model that they do not name'}"
    if not model:
        return f"{entry.place} names no model; {claimed}. That it is this one was not checked."
    if _plain(model) in map(_plain, names):
        return ""
    others = [name for row in reported.rows if row["row"] != entry.row for name in reported.names_of(row["row"])]
    if entry.rung in FILES and (names or _plain(model) in map(_plain, others)):
        raise DataError(
            f"{entry.place} is about {model!r}, {claimed}.",
            hint=f"Give the files of that model, or name {model!r} under `models` in your copy of the claims.",
        )
    return f"{entry.place} is about {model!r}, {claimed}. That they are one model was not checked."


def _plain(name: str) -> str:
    """Return a name without its owner, case and separators: `sfairXC/FsfairX-Zephyr-Chat-v0.1` is `fsfairxzephyrchatv01`."""
    own = re.split(r"/|--", name)[-1]
    return re.sub(r"[\W_]+", "", own.casefold())
