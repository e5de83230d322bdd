"""Other evaluations join: the results of lm-evaluation-harness become cells (for example to see an alignment tax).

Its result file (`results_*.json`) has, under `results`, `{task: {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": ...}}` and
under `n-samples` the number of samples of every task. Before version 0.4 the metrics were called `acc` and `acc_stderr`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gshf_release.data import user_files
from gshf_release.data.results import Cell
from gshf_release.errors import DataError
from gshf_release.evaluation import file_copies
from gshf_release.evaluation.requests import ImportRequest
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Parameters, Stage

IDENTITY = "import-lm-eval/1"
TABLE = "lm-evaluation-harness"
FILE = "results.json"
NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "nan", "inf", "-inf")


class LmEvalParameters(Parameters):
    """Say which file is imported, and for which row."""

    sha256: str
    row: str


def declare_lm_eval_import(name: str, request: ImportRequest) -> Stage:
    """Declare the import of one result file for one row."""
    return Stage(
        name=f"imports/{name}",
        identity=IDENTITY,
        work="gshf_release.evaluation.lm_eval_import:copy_lm_eval_results",
        kind="other",
        outputs=(FILE,),
        parameters=LmEvalParameters(sha256=request.sha256, row=request.row).as_json(),
        numbers="gshf_release.evaluation.lm_eval_import:lm_eval_cells",
    )


def copy_lm_eval_results(context: StageContext) -> None:
    """Copy what the cells are made of out of the result file."""
    document = read_lm_eval_results(file_copies.path(context.run, context.parameters(LmEvalParameters).sha256))
    names = ("results", "n-samples", "n-shot", "versions", "higher_is_better", "model_name")
    kept_part = {key: document[key] for key in names if key in document}
    shots = _of_task(document, "config", "num_fewshot")  # where versions before 0.4 have it, for all tasks
    if "n-shot" not in document and isinstance(shots, int):
        kept_part["n-shot"] = dict.fromkeys(document["results"], shots)
    write_json(context.output(FILE), kept_part)


def lm_eval_cells(context: StageContext) -> list[Cell]:
    """Return one cell for every metric of every task."""
    path = context.output(FILE)
    return cells_of_results(
        read_lm_eval_results(path), context.parameters(LmEvalParameters).row, context.run.relative(path)
    )


def read_lm_eval_results(path: Path) -> dict[str, Any]:
    """Return a result file of lm-evaluation-harness.

    Raises:
        DataError: It is not one.
    """
    try:
        document = user_files.read_json(path, parse_constant=str)  # NaN is no JSON
    except DataError as error:
        raise DataError(f"{error.message.rstrip('.')}; it is no result file of lm-evaluation-harness.") from error
    results = document.get("results") if isinstance(document, dict) else None
    good = isinstance(results, dict) and results and all(isinstance(entry, dict) for entry in results.values())
    if not good:
        raise DataError(f'{path} is no result file of lm-evaluation-harness: it has no tasks under "results".')
    if "config_general" in document:
        raise DataError(
            f"{path} is a result file of lighteval, not of lm-evaluation-harness.",
            hint="Run the tasks with lm-evaluation-harness: its numbers of the same name are made otherwise.",
        )
    if not cells_of_results(document, "", ""):
        raise DataError(f'{path} holds no metric under "results": nothing could be imported.')
    return dict(document)


def cells_of_results(document: Mapping[str, Any], row: str, artefact: str) -> list[Cell]:
    """Return the metrics as cells: `<task>: <metric>`, with the filter in brackets if it is not `none`."""
    found = []
    old = not any(
        "," in key for entry in document["results"].values() for key in entry
    )  # no filters before version 0.4
    for task, entry in document["results"].items():
        shots, counts = _of_task(document, "n-shot", task), _of_task(document, "n-samples", task)
        count = counts.get("effective") if isinstance(counts, Mapping) else None
        for key, value in entry.items():
            metric, comma, chosen = (key, ",", "none") if old else key.partition(",")
            known = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
            if not comma or metric.endswith("_stderr") or not (known or str(value) in NO_NUMBERS):
                continue
            error = entry.get(f"{metric}_stderr" if old else f"{metric}_stderr,{chosen}")
            found.append(
                Cell(
                    table=TABLE,
                    row=row,
                    metric=f"{task}: {metric}" + ("" if chosen == "none" else f" ({chosen})"),
                    value=float(value) if known else None,
                    standard_error=_error(error) if known else None,
                    n=count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None,
                    decoding=f"{shots}-shot" if isinstance(shots, int) else "",
                    artefact=artefact,
                    note="" if known else f"the file says {value}, which is no number",
                )
            )
    return found


def _of_task(document: Mapping[str, Any], key: str, task: str) -> Any:
    """Return what a part of the file says of a task, or None where it says nothing or is no part."""
    part = document.get(key)
    return part.get(task) if isinstance(part, Mapping) else None


def _error(value: Any) -> float | None:
    """Return a standard error, which the file may give as a text or as no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
