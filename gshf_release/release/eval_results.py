"""`eval/` of a release folder: the cells its card shows and the judgments they come from, so that anybody can recompute them.

eval/results.json                          every cell the card may show
eval/judgments/<row>.<set>.parquet         one row a comparison: ids and numbers, no texts
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gshf_release.data import documents, statistics
from gshf_release.data.records import Judgment
from gshf_release.data.results import Cell, find, read_cells, write_cells
from gshf_release.data.statistics import Estimate
from gshf_release.errors import DataError
from gshf_release.release.folders import RESULTS_FILE as RESULTS

JUDGMENTS = "eval/judgments"
SECOND_SCORER = "second-scorer"
DIGITS = range(5)
"""Decimals that a card may round to."""
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?")
REPORTED = "reported"


def write_eval_results(folder: Path, cells: Sequence[Cell], judgments: Iterable[tuple[str, Path]]) -> None:
    """Write the cells, and a copy of each judgments file that has rows.

    Args:
        folder: A release folder.
        cells: What its card may show.
        judgments: `(stage, file)`; the stage is called `<row>/<set>/judgments`.
    """
    write_cells(cells, folder / RESULTS)
    for stage, path in judgments:
        row, name, _ = stage.split("/")
        if Judgment.read(path):
            (folder / JUDGMENTS).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / JUDGMENTS / f"{row}.{name}.parquet")


def recompute(folder: Path) -> tuple[int, list[str]]:
    """Return how many numbers come out of the judgments as recorded, and a line for each that does not."""
    if not (folder / RESULTS).is_file():
        return 0, []
    count, wrong = 0, []
    try:
        cells = read_cells(folder / RESULTS)
        for path in sorted((folder / JUDGMENTS).glob("*.parquet")):
            row, name = path.stem.split(".", 1)
            for metric, judge, decoding, estimate in _estimates(Judgment.read(path)):
                recorded = find(cells, table=name, row=row, metric=metric, decoding=decoding, judge=judge)
                count += 1
                place = f"{path.relative_to(folder).as_posix()}: {metric} of {row}, {decoding}"
                if recorded is None:
                    wrong.append(f"{place}: computed as {estimate.value}, not in {RESULTS}.")
                elif not _same(recorded, estimate):
                    wrong.append(f"{place}: recorded as {recorded.value}, computed as {estimate.value}.")
    except (DataError, ValueError) as error:
        wrong.append(str(error).splitlines()[0])
    return count - len(wrong), wrong


def check_card(folder: Path) -> tuple[int, list[str]]:
    """Compare the card's numbers with `eval/results.json`.

    Compared are the metadata's `model-index`, metric by metric, and in every table outside a section about reported numbers the
    cells of rows that are called as a row of the results: each number must be that of a cell of the row.

    Returns:
        How many numbers agree, and a line for each that does not.
    """
    card = folder / "README.md"
    if not card.is_file() or not (folder / RESULTS).is_file():
        return 0, []
    try:
        cells = read_cells(folder / RESULTS)
        text = card.read_text(encoding="utf-8")
        index = _metadata(text).get("model-index") or []
    except (DataError, ValueError) as error:
        return 0, [f"README.md or {RESULTS} is damaged: {str(error).splitlines()[0]}"]
    checked = [*_index_numbers(index, cells), *_table_numbers(text, cells)]
    wrong = [line for line in checked if line]
    return len(checked) - len(wrong), wrong


def _estimates(rows: Sequence[Judgment]) -> Iterable[tuple[str, str, str, Estimate]]:
    for decoding in dict.fromkeys(row.decoding for row in rows):
        chosen = [row for row in rows if row.decoding == decoding]
        yield "win rate", chosen[0].annotator, decoding, statistics.win_rate([row.preference for row in chosen])
        gains = [row.model_score - row.baseline_score for row in chosen]
        yield "gain over base", SECOND_SCORER, decoding, statistics.mean(gains)


def _same(recorded: Cell, found: Estimate) -> bool:
    pairs = [(recorded.value, found.value), (recorded.standard_error, found.standard_error), (recorded.n, found.n)]
    return all(a == b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in pairs)


def _metadata(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    document = documents.parse_yaml(found.group(1)) if found else {}
    return document if isinstance(document, dict) else {}


def _index_numbers(index: Sequence[Any], cells: Sequence[Cell]) -> Iterable[str]:
    """Yield for each metric of the model-index an empty text, or what is wrong with it."""
    for metric in (metric for model in index for result in model["results"] for metric in result["metrics"]):
        args = metric.get("args") or {}
        row = f"iteration-{args.get('iteration')}"
        wanted = {key: str(args[key]) for key in ("judge", "baseline", "decoding") if args.get(key) is not None}
        same = [
            entry
            for entry in cells
            if entry.row == row
            and entry.metric == str(metric["type"]).replace("_", " ")
            and all(getattr(entry, key) == value for key, value in wanted.items())
        ]
        agrees = any(
            _rounded(entry.value, float(metric["value"]))
            and args.get("n") in (None, entry.n)
            and (args.get("standard_error") is None or _rounded(entry.standard_error, float(args["standard_error"])))
            for entry in same
        )
        yield (
            ""
            if agrees
            else f"README.md: {metric['type']} of {row} is {metric['value']} in the model-index; {_known(same)}."
        )


def _rounded(value: float | None, shown: float) -> bool:
    return value is not None and any(math.isclose(round(value, digits), shown, abs_tol=1e-12) for digits in (4, 6, 17))


def _known(cells: Sequence[Cell]) -> str:
    return f"{RESULTS} has {', '.join(str(entry.value) for entry in cells[:3]) or 'no such number'}"


def _table_numbers(text: str, cells: Sequence[Cell]) -> Iterable[str]:
    """Yield for each number in a row that has results an empty text, or what is wrong with it."""
    reported = False
    for line in text.split("\n"):
        if line.startswith("## "):
            reported = REPORTED in line.lower()
        if reported or not line.startswith("| "):
            continue
        first, *rest = [entry.strip() for entry in line.strip().strip("|").split(" | ")]
        row = first.replace("\\", "").removesuffix(" (control)")
        own = [entry for entry in cells if entry.row == row]
        if not own:
            continue
        shown = _renderings(own, cells)
        for entry in rest:
            if NUMBER.fullmatch(entry):
                yield "" if entry in shown else f"README.md: {entry} in the row {first} is no number of {RESULTS}."


def _renderings(own: Sequence[Cell], cells: Sequence[Cell]) -> set[str]:
    """Return every text that a cell of the row can be shown as; a control's length is the base's at its temperature."""
    row = own[0].row if own else ""
    if row.startswith("base at "):
        own = [
            *own,
            *(entry for entry in cells if entry.row == "base" and entry.decoding == row.removeprefix("base at ")),
        ]
    texts = {str(entry.n) for entry in own}
    for entry in own:
        if entry.value is None:
            continue
        for digits in DIGITS:
            texts.add(f"{entry.value:.{digits}f}")
            if entry.standard_error is not None:
                texts.add(f"{entry.value:.{digits}f} ± {entry.standard_error:.{digits}f}")
                texts.add(f"{entry.standard_error:.{digits}f}")
    return texts
