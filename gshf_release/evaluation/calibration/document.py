"""A calibration: what a substitute judge's win rate means in the official judge's terms, and how sure that is.

found = calibrate(read_official(paths), judge, sample_size=200)
found.save(default_path(judge.name))
load("my-judge").estimate(41.3, 1.7)    # Interval(value, low, high, level), percent
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from gshf_release.data.bootstrap import Interval
from gshf_release.data.statistics import Estimate
from gshf_release.errors import CalibrationError, DataError
from gshf_release.evaluation.calibration import agreement as agreements
from gshf_release.evaluation.calibration import regression
from gshf_release.evaluation.calibration import replay as replays
from gshf_release.evaluation.calibration.regression import LEVEL, Array, RegressionLine
from gshf_release.models.checkpoints import cache_folder


class Facts(BaseModel):
    """Part of the document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRates(Facts):
    """One model's win rates on the sampled prompts, percent."""

    model: str
    official: float
    official_error: float
    substitute: float
    substitute_error: float


class LeaveOneOut(Facts):
    """Records what the other models' calibration says of one model."""

    model: str
    official: float
    substitute: float
    estimate: float | None
    low: float | None
    high: float | None
    contains: bool | None
    """Whether the interval contains the official win rate on the same prompts."""
    refused: str = ""
    """Why there is no estimate."""


class Calibration(Facts):
    """The document that `gshf-release calibrate` saves."""

    format: Literal[1] = 1
    judge: str
    official_judge: str
    baseline: str
    prompts: int
    """Prompts that the line is fitted on."""
    failed: int
    seed: int
    agreement: agreements.Agreement
    spearman: float | None
    models: tuple[ModelRates, ...]
    line: RegressionLine
    slope: Interval | None
    """Of the official win rate on the substitute's; None if the line cannot be inverted."""
    intercept: Interval | None
    """Official win rate where the substitute's is 0, percent."""
    leave_one_out: tuple[LeaveOneOut, ...]
    refused: str = ""
    """Why no estimate can be had from this judge at all."""

    @property
    def range(self) -> tuple[float, float]:
        """The substitute's lowest and highest win rate that the line was fitted on, percent."""
        rates = [entry.substitute for entry in self.models]
        return min(rates), max(rates)

    def estimate(self, win_rate: float, standard_error: float | None, level: float = LEVEL) -> Interval:
        """Return the official win rate that a substitute win rate speaks for, with its interval, percent.

        Args:
            win_rate: Of a new model by the substitute judge against the same baseline, percent.
            standard_error: Of it; None counts as 0.
            level: Confidence level.

        Raises:
            CalibrationError: The judge's slope is not surely positive, or the win rate is outside the models' range.
        """
        if self.refused:
            raise CalibrationError(self.refused, hint="Use a judge that agrees more, more prompts or more models.")
        return official_rate(self.line, self.range, win_rate, standard_error or 0.0, level)

    def save(self, path: Path) -> Path:
        """Write the document as JSON and return where."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
        return path

    def document(self) -> dict[str, Any]:
        """Return the document as JSON has it: intervals and estimates as objects."""
        found = self.model_dump(mode="json")
        for key in ("slope", "intercept"):
            interval = getattr(self, key)
            found[key] = None if interval is None else interval._asdict()
        for key in ("accuracy", "length_bias", "position_bias"):
            estimate: Estimate | None = getattr(self.agreement, key)
            found["agreement"][key] = None if estimate is None else estimate._asdict()
        return found


def default_path(judge: str) -> Path:
    """Return where the calibration of a judge is kept in the cache."""
    name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in judge)
    return cache_folder() / "calibrations" / f"{name}.json"


def load(reference: Path | str) -> Calibration:
    """Return a saved calibration: a file, or the one in the cache of a judge of this name.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = Path(reference)
    if not path.is_file():
        path = default_path(str(reference))
    if not path.is_file():
        raise DataError(f"There is no calibration {reference}.", hint="Make one: gshf-release calibrate JUDGE")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key, kind in (("slope", Interval), ("intercept", Interval)):
            content[key] = None if content[key] is None else kind(**content[key])
        for key in ("accuracy", "length_bias", "position_bias"):
            entry = content["agreement"][key]
            content["agreement"][key] = None if entry is None else Estimate(**entry)
        return Calibration.model_validate(content)
    except (ValueError, ValidationError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no calibration of this version.", hint="Run gshf-release calibrate again."
        ) from error


def calibrate(
    official: replays.Official, judge: replays.SubstituteJudge, *, sample_size: int | None = None, seed: int = 0
) -> Calibration:
    """Return the calibration of a substitute judge.

    Args:
        official: Stored judgments of several models.
        judge: The substitute; it judges every model's answer to each sampled prompt.
        sample_size: How many prompts; None takes all that the models share.
        seed: Chooses the sample.

    Raises:
        DataError: There are too few models or prompts.
    """
    prompts = replays.sample(official.shared_prompts(), sample_size, seed)
    regression.require(len(official.models), len(prompts))
    replayed = replays.replay(official, prompts, judge)
    y, x = 100 * replayed.official, 100 * replayed.substitute
    line = regression.fit(y, x)
    rates = [ModelRates(model=m, **_rates(y[:, k], x[:, k])) for k, m in enumerate(official.models)]
    refused = refusal(line)
    return Calibration(
        judge=judge.name,
        official_judge=official.judge,
        baseline=official.baseline,
        prompts=len(y),
        failed=replayed.failed,
        seed=seed,
        agreement=agreements.agreement(replayed.pairs),
        spearman=agreements.spearman([r.official for r in rates], [r.substitute for r in rates]),
        models=tuple(rates),
        line=line,
        slope=None if refused else _slope(line),
        intercept=None if refused else line.invert(0.0, 0.0, tau=False),
        leave_one_out=tuple(_left_out(y, x, k, official.models[k]) for k in range(len(official.models))),
        refused=refused,
    )


def _rates(official: Array, substitute: Array) -> dict[str, float]:
    root = math.sqrt(len(official))
    return {
        "official": float(official.mean()),
        "official_error": float(official.std(ddof=1) / root),
        "substitute": float(substitute.mean()),
        "substitute_error": float(substitute.std(ddof=1) / root),
    }


def refusal(line: RegressionLine) -> str:
    """Return why the line cannot serve, or nothing."""
    found = line.beta_interval()
    if found.low > 0:
        return ""
    share = f"{found.level:.0%}"
    return (
        f"The substitute's win rate moves by {found.value:.2f} points per official point, {share} interval "
        f"{found.low:.2f} to {found.high:.2f}, which is not surely above zero: it says nothing about the official win rate."
    )


def _slope(line: RegressionLine) -> Interval:
    """Return the slope of official on substitute win rate: the inverse of beta and of its interval's ends."""
    found = line.beta_interval()
    return Interval(1 / found.value, 1 / found.high, 1 / found.low, found.level)


def official_rate(
    line: RegressionLine, bounds: tuple[float, float], win_rate: float, error: float, level: float
) -> Interval:
    """Return the official win rate that a substitute one speaks for, percent, cut to 0..100.

    Raises:
        CalibrationError: It is outside the bounds, or the line cannot be inverted.
    """
    low, high = bounds
    if not low <= win_rate <= high:
        raise CalibrationError(
            f"The win rate {win_rate:.2f} is outside the calibrated range {low:.2f} to {high:.2f}.",
            hint="Calibrate with stored judgments of weaker and stronger models.",
        )
    try:
        found = line.invert(win_rate, error**2, level)
    except DataError as failure:
        raise CalibrationError(failure.message, hint="Use more prompts or more models.") from failure
    value, lower, upper = (min(100.0, max(0.0, end)) for end in found[:3])
    return Interval(value, lower, upper, level)


def _left_out(official: Array, substitute: Array, place: int, model: str) -> LeaveOneOut:
    """Return what the line through the other models says of one."""
    own = _rates(official[:, place], substitute[:, place])
    rates = {"model": model, "official": own["official"], "substitute": own["substitute"]}
    others = [other for other in range(official.shape[1]) if other != place]
    try:
        line = regression.fit(official[:, others], substitute[:, others])
        if reason := refusal(line):
            raise CalibrationError(reason)
        means = substitute[:, others].mean(axis=0)
        found = official_rate(line, (means.min(), means.max()), own["substitute"], own["substitute_error"], LEVEL)
    except DataError as error:
        return LeaveOneOut(**rates, estimate=None, low=None, high=None, contains=None, refused=error.message)
    contains = bool(found.low <= own["official"] <= found.high)
    return LeaveOneOut(**rates, estimate=found.value, low=found.low, high=found.high, contains=contains)


def estimate_of(preferences: Sequence[float] | Array) -> Estimate:
    """Return the win rate in percent of a new model's preferences."""
    array = 100 * np.asarray(preferences, dtype=np.float64)
    return Estimate(float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))), len(array))
