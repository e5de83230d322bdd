"""Names of the metrics that several places must agree on: cells are written under them, tables and cards look them up."""

from __future__ import annotations

MEASURES = ("win rate", "average", "adjusted win rate")
"""What a judge's rows are compared by: AlpacaEval, MT-Bench's ratings, MT-Bench's games."""
FAILED = "failed judgments"
"""How many judgments have no verdict; its `n` is how many were asked for."""
CALIBRATED = "calibrated win rate"
"""The official judge's win rate that another judge's speaks for; see `gshf-release calibrate`."""
NOISE = "judge noise"
"""Standard deviation of one judgment around the mean of all judgments of the same answer."""
NOISE_SHARE = "judge noise share"
"""What part of a number's squared standard error the judge's noise makes up, percent."""
DOUBT = "judgments: "
"""Before what makes one doubt a verdict, of `verdicts.reading.DOUBTS`: how many judgments have it; `n` is all of them."""

ANSWERED_BY = "answered by "
"""Before the name of a model that made judgments."""


def doubt(what: str) -> str:
    """Return the metric of how many judgments have something that makes one doubt their verdict."""
    return DOUBT + what


def answered_by(model: str) -> str:
    """Return the metric of how many judgments a model made, by the name that the judge's server gave."""
    return ANSWERED_BY + model


def low(metric: str) -> str:
    """Return the metric of the lower end of a metric's interval."""
    return f"{metric} (low end)"


def high(metric: str) -> str:
    """Return the metric of the upper end of a metric's interval."""
    return f"{metric} (high end)"


def difference(measure: str, other: str) -> str:
    """Return the metric of a row's paired difference from another row."""
    return f"{measure} minus {other}"


def sign_test(other: str) -> str:
    """Return the metric of the sign test's p."""
    return f"sign test p against {other}"


def detectable(other: str) -> str:
    """Return the metric of the minimal detectable difference."""
    return f"minimal detectable difference from {other}"
