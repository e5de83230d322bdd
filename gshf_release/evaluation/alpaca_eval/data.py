"""Read what AlpacaEval 2's length-controlled win rate borrows: instruction difficulties and judgments of a gamed baseline."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gshf_release.data.hashing import sha256_json
from gshf_release.data.user_files import read_text
from gshf_release.errors import DataError, NetworkError
from gshf_release.prompts.benchmark_files import (
    ALPACA_EVAL,
    GAMED_BASELINES,
    INSTRUCTION_DIFFICULTY,
    BenchmarkFile,
    LocatedFile,
    obtain,
)

Array = npt.NDArray[np.float64]
ORDER_SHA256 = "d02007bfbcc8fcf624c641e8b70d53e82f7d0c061d12cf1b5695357e0d0090ce"
"""`sha256_json` of the evaluation set's instructions in their order: tells a complete file in order without the set at hand."""
DIFFICULTY_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class GamedBaselines:
    """Judgments of the baseline told to be concise and to be verbose against itself, rows of both one after the other."""

    preference: Array
    """(rows,) from 0 to 1."""
    length_difference: Array
    """(rows,) baseline's length minus the model's, in standard deviations."""
    difficulty: Array
    """(rows,)"""


@dataclass(frozen=True, slots=True, eq=False)
class AlpacaEvalData:
    """The borrowed parts, as far as they are at hand."""

    gamed: GamedBaselines | None = None
    difficulty: Array | None = None
    """(instructions,) by place in the evaluation set."""
    instructions: tuple[str, ...] = ()
    """The evaluation set in its order; empty if it is not at hand."""
    missing: str = ""
    """Why the fit cannot be made; empty if it can."""
    unverified: tuple[str, ...] = ()
    """Files that are used although they are not the pinned ones."""
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return what results say about the files."""
        if self.missing:
            return "missing"
        return f"unverified: {', '.join(self.unverified)}" if self.unverified else "verified"


def load(folder: Path | None = None, *, allow_unverified: bool = False) -> AlpacaEvalData:
    """Return the borrowed parts from the folder, `GSHF_BENCHMARK_DATA`, the cache or the network.

    A file that cannot be had is no error: `missing` says which, and only the length-controlled win rate goes without.

    Raises:
        DataError: A file is there but broken, or is not the pinned one and `allow_unverified` does not permit it.
    """
    try:
        gamed_file = obtain(GAMED_BASELINES, folder, allow_unverified=allow_unverified)
    except NetworkError as error:
        return AlpacaEvalData(missing=str(error))
    difficulty_file = _optional(INSTRUCTION_DIFFICULTY, folder, allow_unverified)
    evaluation_set = _optional(ALPACA_EVAL, folder, allow_unverified)
    gamed, difficulty = read_gamed(gamed_file.path)
    used = [(GAMED_BASELINES.name, gamed_file)]
    warnings = []
    if difficulty_file is not None:
        used.append((INSTRUCTION_DIFFICULTY.name, difficulty_file))
        warnings += _compare(difficulty, read_difficulty(difficulty_file.path))
    return AlpacaEvalData(
        gamed=gamed,
        difficulty=difficulty,
        instructions=read_instructions(evaluation_set.path) if evaluation_set is not None else (),
        unverified=tuple(name for name, found in used if not found.verified),
        warnings=tuple(warnings),
    )


def is_complete_in_order(instructions: list[str]) -> bool:
    """Return whether these are the evaluation set's instructions, all of them, in its order."""
    return sha256_json(instructions) == ORDER_SHA256


def read_instructions(path: Path) -> tuple[str, ...]:
    """Return the instructions of the evaluation set in order."""
    return tuple(row["instruction"] for row in json.loads(path.read_text(encoding="utf-8")))


def read_gamed(path: Path) -> tuple[GamedBaselines, Array]:
    """Return `df_gamed.csv` and the difficulties in it, by place in the evaluation set.

    The library fits on the difficulties of this file, too: the first row of each instruction.

    Raises:
        DataError: A column is missing or a value is no number; names the line.
    """
    columns = ("preference", "std_delta_len", "instruction_difficulty", "index")
    table = _columns(path, columns)
    places = table[:, 3].astype(np.int64)
    first = [int(np.flatnonzero(places == place)[0]) for place in range(int(places.max()) + 1) if place in places]
    if len(first) != int(places.max()) + 1 or places.min() < 0:
        raise DataError(f"{path}: the column 'index' must count from 0 without gaps.", hint="Bring the file again.")
    return GamedBaselines(table[:, 0], table[:, 1], table[:, 2]), table[first, 2]


def read_difficulty(path: Path) -> Array:
    """Return `instruction_difficulty.csv`, by place in the evaluation set.

    Raises:
        DataError: It has no column of that name, or a value is no number; names the line.
    """
    return _columns(path, ("instruction_difficulty",))[:, 0]


def _optional(file: BenchmarkFile, folder: Path | None, allow_unverified: bool) -> LocatedFile | None:
    try:
        return obtain(file, folder, allow_unverified=allow_unverified)
    except NetworkError:
        return None


def _compare(difficulty: Array, other: Array) -> list[str]:
    if len(difficulty) == len(other) and float(np.abs(difficulty - other).max()) <= DIFFICULTY_TOLERANCE:
        return []
    names = f"{GAMED_BASELINES.name} and {INSTRUCTION_DIFFICULTY.name}"
    return [f"The difficulties in {names} differ: they come from two fits. Those of {GAMED_BASELINES.name} are used."]


def _columns(path: Path, names: tuple[str, ...]) -> Array:
    """Return columns of a CSV file, (rows, columns)."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}.", hint="Bring the file again.")
        rows = [[_number(row[name], name, f"{path}:{line}") for name in names] for line, row in enumerate(reader, 2)]
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}.", hint="Bring the file again.") from error
    if not rows:
        raise DataError(f"{path} has no rows.", hint="Bring the file again.")
    return np.asarray(rows, dtype=np.float64)


def _number(value: Any, name: str, place: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place}: {name} {value!r} is no number.", hint="Bring the file again.")
    return number
