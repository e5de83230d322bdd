"""Results: cells with their standard error and origin; every table, card and plot renders from them.

Each stage writes its own `results/<stage>.json`; `results.json` is their pure merge. Measured and reported cells never mix.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gshf_release.data import documents
from gshf_release.data.statistics import Estimate
from gshf_release.errors import DataError

SEED_FIELDS = ("seeds", "standard_error_across_seeds")


class Cell(BaseModel):
    """One number of one table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    """Which question it answers: `reward-model`, `validation`, `training`, `test`, `evaluation`."""
    row: str
    """Whose number it is: `base`, `iteration-1`, `base at T=0.3`, ..."""
    metric: str
    value: float | None
    standard_error: float | None = None
    n: int | None = None
    of: int | None = None
    """What `n` would be if every question of the benchmark were asked and judged; None where there is no such number."""
    unit: str = ""
    decoding: str = ""
    judge: str = ""
    baseline: str = ""
    origin: Literal["measured", "reported"] = "measured"
    artefact: str = ""
    """File in the run, relative to it, from which the number is recomputed."""
    note: str = ""
    seeds: int | None = None
    """In a merge over training seeds: how many. `value` is the mean over them then, and `standard_error` is left out."""
    standard_error_across_seeds: float | None = None
    """Of the mean over training seeds."""

    @property
    def partial(self) -> bool:
        """Return whether something that belongs to the number is missing."""
        return self.of is not None and (self.n or 0) < self.of

    @property
    def count(self) -> str:
        """`805`, or `500 of 805` where something is missing, or a dash."""
        if self.of is not None and self.partial:
            return f"{self.n or 0} of {self.of}"
        return "–" if self.n is None else str(self.n)

    @property
    def key(self) -> tuple[str, ...]:
        """Return what makes a cell unique."""
        return (self.table, self.row, self.metric, self.decoding, self.judge, self.baseline, self.origin)


def cell(estimate: Estimate, **place: Any) -> Cell:
    """Return a cell from a mean with its standard error and n."""
    return Cell(value=estimate.value, standard_error=estimate.standard_error, n=estimate.n, **place)


def write_cells(cells: Sequence[Cell], path: Path) -> None:
    """Write one stage's cells as JSON, one key order, two-space indent.

    Raises:
        DataError: A value is NaN or infinite, which JSON cannot hold; names the cell.
    """
    for entry in cells:
        if not all(math.isfinite(value) for value in (entry.value, entry.standard_error) if value is not None):
            raise DataError(
                f"{entry.table}, {entry.row}, {entry.metric}: {entry.value} ± {entry.standard_error} is not a finite number.",
                hint=f"Look at what it was computed from{f', {entry.artefact}' if entry.artefact else ''}.",
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"cells": [entry.model_dump(exclude_defaults=True) | {"value": entry.value} for entry in cells]}
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(
        json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
    temporary.replace(path)


def write_csv(cells: Sequence[Cell], path: Path) -> None:
    """Write cells as CSV, one a line, a column a field."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        unused = set() if any(entry.seeds for entry in cells) else set(SEED_FIELDS)
        writer.writerow(name for name in Cell.model_fields if name not in unused)
        for entry in cells:
            writer.writerow(["" if value is None else value for value in entry.model_dump(exclude=unused).values()])
    temporary.replace(path)


def read_cells(path: Path) -> list[Cell]:
    """Return the cells of one results file.

    Raises:
        DataError: It is damaged.
    """
    try:
        cells = [Cell.model_validate(entry) for entry in documents.read_json(path)["cells"]]
    except ValidationError as error:
        raise _damaged(path, f"a cell is none ({error.errors(include_url=False)[0]['msg']})") from error
    except (KeyError, TypeError) as error:
        raise _damaged(path, "it has no list of cells") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not all(math.isfinite(number) for entry in cells for number in (entry.value, entry.standard_error) if number):
        raise _damaged(path, "a number is not finite")
    return cells


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}.", hint="Run the command that made it again.")


def select(cells: Iterable[Cell], **wanted: str) -> list[Cell]:
    """Return the cells whose fields equal `wanted`."""
    return [entry for entry in cells if all(getattr(entry, key) == value for key, value in wanted.items())]


def find(cells: Iterable[Cell], **wanted: str) -> Cell | None:
    """Return the first cell whose fields equal `wanted`, or None."""
    return next(iter(select(cells, **wanted)), None)


def rows_of(cells: Iterable[Cell]) -> list[str]:
    """Return the rows in order of first appearance."""
    return list(dict.fromkeys(entry.row for entry in cells))


def shown(entry: Cell | None, digits: int = 2) -> str:
    """Return `12.34 ± 0.56`, `12.34` without a standard error, or a dash for a missing cell."""
    if entry is None or entry.value is None:
        return "–"
    text = f"{entry.value:.{digits}f}"
    return text if entry.standard_error is None else f"{text} ± {entry.standard_error:.{digits}f}"
