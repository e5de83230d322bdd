"""Compare published numbers, the files in eval/reported, with what was measured anew; find where a claim breaks.

A claim is checked rung by rung, from the number as printed down to everything done anew. Each rung may be off by the noise of
what it does anew; the first that is off by more is where the claim breaks.
"""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from gshf_release.data import assets
from gshf_release.errors import RecipeError
from gshf_release.recipe import Section, parse, read_mapping

Benchmark = Literal["alpaca_eval_2", "mt_bench"]
Metric = Literal["win rate", "LC win rate", "standard error", "length", "average"]
Rung = Literal["published", "judgments", "answers", "weights", "recipe"]
NEEDS: dict[Rung, str] = {
    "published": "the Python package with the leaderboard",
    "judgments": "--annotations [ROW=]FILE, the official judge's stored judgments (annotations.json, MT-Bench .jsonl)",
    "answers": "--outputs [ROW=]FILE (model_outputs.json), and --rejudged [ROW=]FILE, the official judge's new judgments of it",
    "weights": "--run [ROW=]RUN, what `gshf-release eval MODEL` made of the published weights",
    "recipe": "--run [ROW=]RUN, what `gshf-release train` and `eval` made of the recipe",
}
"""What each rung is checked with, in order; a rung carries the noise of those before it."""
RUNGS = tuple(NEEDS)
VERIFIED, CONTRADICTED, UNCHECKABLE = "verified", "contradicted", "uncheckable"
FOLDER = "eval/reported"
QUANTILE = 2.576
"""Of the 99 % interval: a dozen claims at 95 % would leave one contradicted by chance every other time."""
EXACT = 1e-6
"""Rounding of a number that the leaderboard gives to every digit."""
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
    """Says where an installed package has the numbers of a row to every digit."""

    package: str
    file: str
    """Path in the package."""
    model: str
    row: str


class Unavailable(Section):
    """Says what cannot be brought by anyone."""

    row: str
    benchmark: Benchmark | None = None
    """None stands for all."""
    rungs: tuple[Rung, ...]
    why: str


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
    noise: dict[Rung, dict[Metric, float]] = Field(default_factory=dict)
    """Standard deviations by metric, of what each rung does anew."""
    numerical: dict[Metric, float] = Field(default_factory=dict)
    """Bounds of the computation itself, added to every tolerance from judgments on."""

    def all_claims(self) -> list[Claim]:
        """Return the claims in the rows, and those beside them."""
        roundings: dict[Metric, float] = {"win rate": 0.005, "LC win rate": 0.005, "length": 0.5}
        found = [
            Claim(row=row["row"], metric=metric, value=row[metric], rounding=rounding, source=self.source)
            for row in self.rows
            for metric, rounding in roundings.items()
            if metric in row
        ]
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
        """Return how far a number may be from the claim: rounding, bounds of the computation, and 99 % of the rung's noise.

        `measured_error` is the standard error that the measurement has beyond that noise, of a calibrated judge for example.
        """
        noise = [self.noise.get(step, {}).get(metric, 0.0) for step in RUNGS[: RUNGS.index(rung) + 1]]
        return rounding + self.numerical.get(metric, 0.0) + QUANTILE * math.hypot(measured_error, *noise)


@dataclass(frozen=True, slots=True)
class Measured:
    """One number measured anew, or why there is none."""

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

    def without_value(self, why: str) -> Self:
        """Return it with a reason in place of the number."""
        return replace(self, value=None, why=why)


@dataclass(frozen=True, slots=True)
class Check:
    """One claim at one rung."""

    rung: Rung
    status: str
    measured: float | None = None
    target: float | None = None
    """The claim, or the leaderboard's number of it to every digit."""
    tolerance: float | None = None
    why: str = ""
    """Why it is uncheckable, or a remark."""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One claim at all rungs."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def decisive(self) -> Check | None:
        """The first check that contradicts it, else the deepest that verifies it."""
        contradicting = [check for check in self.checks if check.status == CONTRADICTED]
        verifying = [check for check in self.checks if check.status == VERIFIED]
        return next(iter(contradicting[:1] or verifying[-1:]), None)

    @property
    def status(self) -> str:
        """Return whether the claim is verified, contradicted or uncheckable."""
        return self.decisive.status if self.decisive else UNCHECKABLE

    @property
    def rung(self) -> Rung | None:
        """Return where that was decided."""
        return self.decisive.rung if self.decisive else None

    @property
    def why(self) -> str:
        """Return why nothing could be checked: each reason with its rungs."""
        reasons: dict[str, list[str]] = {}
        for check in self.checks:
            if check.why:
                reasons.setdefault(check.why, []).append(check.rung)
        return "; ".join(f"{', '.join(rungs)}: {why}" for why, rungs in reasons.items())


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All claims of one file."""

    reported: Reported
    rungs: tuple[Rung, ...]
    outcomes: tuple[Outcome, ...]

    def count(self, status: str) -> int:
        """Return how many claims have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def looked_up(self) -> int:
        """Return how many claims were only found as printed on the leaderboard; nothing was computed anew."""
        return sum((outcome.status, outcome.rung) == (VERIFIED, RUNGS[0]) for outcome in self.outcomes)

    @property
    def recomputed(self) -> int:
        """Return how many claims came out again from judgments, answers, weights or the recipe."""
        return self.count(VERIFIED) - self.looked_up

    @property
    def verdict(self) -> str:
        """One line: how many claims hold, and where the others break."""
        text = (
            f"{self.recomputed} claims verified by recomputation, {self.looked_up} agree with the leaderboard only, "
            f"{self.count(CONTRADICTED)} contradicted, {self.count(UNCHECKABLE)} uncheckable"
        )
        for rung in RUNGS:
            broken = [each.claim for each in self.outcomes if (each.status, each.rung) == (CONTRADICTED, rung)]
            if broken:
                text += f"; breaks at {rung}: {', '.join(f'{claim.row} {claim.metric}' for claim in broken)}"
        return text

    def uncompared(self) -> list[str]:
        """Return a sentence for each file or run that was given and compared with nothing, with the reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for outcome in self.outcomes:
            for check in outcome.checks:
                if check.status == UNCHECKABLE and check.place:
                    found.setdefault((check.place, outcome.claim.benchmark, check.why), []).append(outcome.claim.metric)
        return [
            f"{place} is not compared with the claims on {benchmark} ({', '.join(metrics)}): {why}."
            for (place, benchmark, why), metrics in found.items()
        ]

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "name": self.reported.name,
            "rungs": [{"rung": rung, "needs": NEEDS[rung]} for rung in self.rungs],
            "verdict": self.verdict,
            "verified_by_recomputation": self.recomputed,
            "agree_with_leaderboard_only": self.looked_up,
            "claims": [
                outcome.claim.model_dump(mode="json")
                | {
                    "status": outcome.status,
                    "rung": outcome.rung,
                    "breaks_at": outcome.rung if outcome.status == CONTRADICTED else None,
                    "checks": [asdict(check) for check in outcome.checks],
                }
                for outcome in self.outcomes
            ],
        }


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


def published(reported: Reported) -> list[Measured]:
    """Return the numbers of the leaderboard's row in the installed package, or why there are none."""
    board = reported.leaderboard
    if board is None:
        return []
    row, why = _leaderboard_row(board)
    place = f"{board.package}/{board.file}"
    entry = Measured(
        "published", board.row, "alpaca_eval_2", "win rate", None, why=why or "the leaderboard has no such column"
    )
    return [
        replace(entry, metric=metric, value=float(row[column]), why="", place=place)
        if row.get(column)
        else replace(entry, metric=metric)
        for metric, column in COLUMNS.items()
    ]


def _leaderboard_row(board: Leaderboard) -> tuple[dict[str, str], str]:
    """Return the row of the model by the names of the columns, and why it is empty if it is."""
    spec = importlib.util.find_spec(board.package)
    if spec is None or spec.origin is None:
        return {}, f"the Python package {board.package} is not installed (pip install 'gshf-release[eval]')"
    path = Path(spec.origin).parent / board.file
    if not path.is_file():
        return {}, f"the installed {board.package} has no {board.file}"
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row.get("") == board.model:
                return row, ""
    return {}, f"the leaderboard in the installed {board.package} has no row {board.model}"


def reproduce(reported: Reported, measured: Sequence[Measured], deepest: Rung) -> Reproduction:
    """Return the verdict on every claim from the number as printed, which `measured` holds too, down to the rung `deepest`."""
    rungs = RUNGS[: RUNGS.index(deepest) + 1]
    outcomes = []
    for claim in reported.all_claims():
        key = (claim.row, claim.benchmark, claim.metric)
        entries = [entry for entry in measured if (entry.row, entry.benchmark, entry.metric) == key]
        checks = [check for rung in rungs for check in _at(rung, reported, claim, entries)]
        outcomes.append(Outcome(claim, tuple(checks)))
    return Reproduction(reported, rungs, tuple(outcomes))


def _at(rung: Rung, reported: Reported, claim: Claim, entries: Sequence[Measured]) -> list[Check]:
    """Compare every number that was measured at a rung with the claim."""
    exact = next((entry.value for entry in entries if entry.rung == "published"), None)
    checks = [_check(reported, claim, entry, exact) for entry in entries if entry.rung == rung]
    if claim.contrast or not checks:
        needs = "it is on no leaderboard that can be read here" if rung == "published" else f"needs {NEEDS[rung]}"
        return [Check(rung, UNCHECKABLE, why=reported.unavailable_because(claim, rung) or needs)]
    return [check for check in checks if check.status != UNCHECKABLE] or checks[:1]


def _check(reported: Reported, claim: Claim, entry: Measured, exact: float | None) -> Check:
    """Compare a number with the claim, or with its digits on the leaderboard if the claim is these, rounded."""
    if entry.value is None:
        return Check(entry.rung, UNCHECKABLE, why=entry.why, place=entry.place)
    if entry.judge and entry.judge not in reported.official_judges.get(claim.benchmark, []) and not entry.calibrated:
        why = f"judged by {entry.judge}, not by the official judge; calibrate it to compare"
        return Check(entry.rung, UNCHECKABLE, measured=entry.value, why=why, place=entry.place)
    target, tolerance = claim.value, claim.rounding
    if entry.rung != "published":
        if exact is not None and abs(exact - claim.value) <= claim.rounding:
            target, tolerance = exact, EXACT
        tolerance = reported.tolerance(claim.metric, entry.rung, tolerance, entry.error)
    status = VERIFIED if abs(entry.value - target) <= tolerance + EXACT else CONTRADICTED
    remark = f"calibrated from {entry.judge}" if entry.calibrated else ""
    return Check(entry.rung, status, entry.value, target, tolerance, remark, entry.place)
