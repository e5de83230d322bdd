"""A saved calibration in an evaluation: found, copied into the run, and turned into cells beside the judge's own win rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

from gshf_release.data.bootstrap import Interval
from gshf_release.data.results import Cell
from gshf_release.errors import CalibrationError, RunError
from gshf_release.evaluation import file_copies, metrics
from gshf_release.evaluation.calibration.document import Calibration, default_path, load
from gshf_release.evaluation.calibration.regression import LEVEL
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.run.directory import RunDirectory


def keep_calibration(run: RunDirectory, judge: JudgeSettings, given: Path | None) -> str | None:
    """Copy the calibration of a judge into the run and return its sha256; None if there is none.

    Args:
        run: The run.
        judge: Whose calibration.
        given: A file that the user named; None looks into the cache.

    Raises:
        DataError: The file is no calibration.
        RunError: It is one of another judge, or the judge needs none.
    """
    if judge.official or judge.benchmark != "alpaca_eval_2":
        if given is not None:
            why = "is the official one" if judge.official else f"judges {judge.benchmark}"
            raise RunError(
                f"--calibration is for substitute judges of AlpacaEval 2; {judge.name} {why}.", hint="Leave it out."
            )
        return None
    path = given or default_path(judge.identity)
    if given is None and not path.is_file():
        return None
    found = load(path)
    if found.judge != judge.identity:
        raise RunError(
            f"{path} is a calibration of the judge {found.judge}, not of {judge.identity}.",
            hint="Make one with the same judge file and overrides: gshf-release calibrate JUDGE --annotations FILE...",
        )
    return file_copies.keep_file(run, path)


def cells(
    calibration: Calibration, rate: Cell, baseline: str, sha256: str, place: Mapping[str, Any], note: str = ""
) -> list[Cell]:
    """Return the calibrated win rate with the ends of its interval, or a cell without a value that says why there is none.

    The standard error is half the interval's width over the normal quantile of its level: the interval is Student's, so this
    is no less than the true one.

    Args:
        calibration: Of the judge.
        rate: The judge's own win rate.
        baseline: Against which it was measured.
        sha256: Of the calibration.
        place: Where the cells stand.
        note: Further remark.
    """
    source = f"calibration {sha256[:8]} on {calibration.prompts} prompts of {len(calibration.models)} models"
    common = {"n": rate.n, "of": rate.of, "unit": "%", **place}
    try:
        found = _estimate(calibration, rate, baseline)
    except CalibrationError as error:
        return [
            Cell(metric=metrics.CALIBRATED, value=None, note=_joined(f"none: {error.message}", source, note), **common)
        ]
    width = NormalDist().inv_cdf((1 + found.level) / 2)
    told = f"{found.level:.0%} interval {found.low:.2f} to {found.high:.2f}"
    main = Cell(
        metric=metrics.CALIBRATED,
        value=found.value,
        standard_error=(found.high - found.low) / (2 * width),
        note=_joined(told, source, note),
        **common,
    )
    ends = {metrics.low(metrics.CALIBRATED): found.low, metrics.high(metrics.CALIBRATED): found.high}
    return [
        main,
        *(
            Cell(metric=metric, value=value, note=f"{found.level:.0%} interval", **common)
            for metric, value in ends.items()
        ),
    ]


def _estimate(calibration: Calibration, rate: Cell, baseline: str) -> Interval:
    if calibration.baseline != baseline:
        raise CalibrationError(f"it was calibrated against {calibration.baseline}, this is against {baseline}")
    if rate.value is None:
        raise CalibrationError("there is no win rate")
    return calibration.estimate(rate.value, rate.standard_error, LEVEL)


def _joined(*notes: str) -> str:
    return "; ".join(note.rstrip(".") for note in notes if note)
