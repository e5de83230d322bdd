"""What was published, by whom, and how far a reproduction may be off: the files in eval/reported."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from gshf_release.data import assets
from gshf_release.errors import RecipeError
from gshf_release.recipe import Section, parse, read_mapping

Benchmark = Literal["alpaca_eval_2", "mt_bench"]
Metric = Literal["win rate", "LC win rate", "standard error", "length", "average"]
Rung = Literal["published", "judgments", "answers", "weights", "recipe"]
RUNGS: tuple[Rung, ...] = ("published", "judgments", "answers", "weights", "recipe")
"""From the number as printed down to everything done anew; a rung carries the noise of those before it."""
FOLDER = "eval/reported"
QUANTILE = 2.576
"""Of the 99 % interval: a dozen claims at 95 % would leave one contradicted by chance every other time."""
EXACT = 1e-6
"""Of a number that the leaderboard gives to every digit."""
COLUMNS: dict[Metric, str] = {
    "win rate": "win_rate",
    "LC win rate": "length_controlled_winrate",
    "standard error": "standard_error",
    "length": "avg_length",
}
"""What the leaderboard calls the metrics."""


class Claim(Section):
    """One published number."""

    row: str
    benchmark: Benchmark = "alpaca_eval_2"
    metric: Metric
    value: float
    rounding: float = 0.005
    """How far the exact number may be from the printed one."""
    source: str
    contrast: bool = False
    """Published of something else, to compare with."""


class Leaderboard(Section):
    """Where an installed package has the numbers of a row to every digit."""

    package: str
    file: str
    """Path in the package."""
    model: str
    row: str


class Unavailable(Section):
    """What cannot be brought by anyone."""

    row: str
    benchmark: Benchmark | None = None
    """None stands for all."""
    rungs: tuple[Rung, ...]
    why: str


class Noise(Section):
    """Standard deviations by metric, of what each rung does anew."""

    judgments: dict[Metric, float] = Field(default_factory=dict)
    answers: dict[Metric, float] = Field(default_factory=dict)
    weights: dict[Metric, float] = Field(default_factory=dict)
    recipe: dict[Metric, float] = Field(default_factory=dict)


class Reported(Section):
    """One file of eval/reported."""

    name: str
    source: str
    benchmark: str
    judge: str
    baseline: str
    rows: list[dict[str, Any]]
    """`{row, win rate, LC win rate, length}`, as cards show them."""
    length_unit: str
    claims: list[Claim] = Field(default_factory=list)
    base: str | None = None
    """The model that was trained; with it a recipe of this file's name is known to be the one that is reported."""
    models: dict[str, list[str]] = Field(default_factory=dict)
    """`{row: what files call its model}`, beside `name` for the last row and the leaderboard's name."""
    leaderboard: Leaderboard | None = None
    official_judges: dict[Benchmark, list[str]] = Field(default_factory=dict)
    unavailable: list[Unavailable] = Field(default_factory=list)
    noise: Noise = Noise()
    numerical: dict[Metric, float] = Field(default_factory=dict)
    """Bounds of the computation itself, added to every tolerance from judgments on."""

    def all_claims(self) -> list[Claim]:
        """Return the claims in the rows, and those beside them."""
        found = []
        for row in self.rows:
            for metric in ("win rate", "LC win rate", "length"):
                if metric in row:
                    rounding = 0.5 if metric == "length" else 0.005
                    found.append(
                        Claim(row=row["row"], metric=metric, value=row[metric], rounding=rounding, source=self.source)
                    )
        return [*found, *self.claims]

    def names_of(self, row: str) -> list[str]:
        """Return what the model of a row may be called in files; nothing if the claims do not say."""
        found = [self.name] if row == self.rows[-1]["row"] else []
        if self.leaderboard is not None and self.leaderboard.row == row:
            found.append(self.leaderboard.model)
        return list(dict.fromkeys([*found, *self.models.get(row, ())]))

    def unavailable_because(self, claim: Claim, rung: Rung) -> str:
        """Return why nobody can bring what a rung of a claim needs, or nothing."""
        for entry in self.unavailable:
            if entry.row == claim.row and rung in entry.rungs and entry.benchmark in (None, claim.benchmark):
                return entry.why
        return ""

    def tolerance(self, metric: Metric, rung: Rung, rounding: float, measured_error: float = 0.0) -> float:
        """Return how far a number may be from the claim at a rung: rounding, bounds of the computation, and 99 % of the noise.

        Args:
            metric: Which number.
            rung: Where it was measured.
            rounding: Of the claim.
            measured_error: Standard error that the measurement has beyond the rung's noise, of a calibrated judge for example.
        """
        if rung == "published":
            return rounding
        variance = measured_error**2
        for step in RUNGS[1 : RUNGS.index(rung) + 1]:
            variance += getattr(self.noise, step).get(metric, 0.0) ** 2
        return rounding + self.numerical.get(metric, 0.0) + QUANTILE * math.sqrt(variance)


class Published(NamedTuple):
    """The leaderboard's row, if it is at hand."""

    values: dict[Metric, float]
    missing: str = ""
    """Why there are none."""


def load(reference: str) -> Reported:
    """Return the claims in a file or of a name in eval/reported.

    Raises:
        RecipeError: There is no such file, or it breaks its format.
    """
    path = assets.find(reference, FOLDER, ".yaml")
    found = parse(Reported, read_mapping(path), str(path))
    if not found.rows or not all("row" in row for row in found.rows):
        raise RecipeError(f"{path}: every entry of rows needs the key row, and there must be one.")
    return found


def published(reported: Reported) -> Published:
    """Return the numbers of the leaderboard's row in the installed package."""
    board = reported.leaderboard
    if board is None:
        return Published({}, "no leaderboard is named")
    spec = importlib.util.find_spec(board.package)
    if spec is None or spec.origin is None:
        return Published({}, f"the Python package {board.package} is not installed (pip install 'gshf-release[eval]')")
    path = Path(spec.origin).parent / board.file
    if not path.is_file():
        return Published({}, f"the installed {board.package} has no {board.file}")
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row.get("") == board.model:
                return Published({metric: float(row[name]) for metric, name in COLUMNS.items() if row.get(name)})
    return Published({}, f"the leaderboard in the installed {board.package} has no row {board.model}")
