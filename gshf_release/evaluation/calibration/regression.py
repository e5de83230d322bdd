"""The line from a substitute judge's win rates to the official judge's, over models, with errors in both.

For model m, y_m is the official win rate and x_m the substitute's, both means over the same n prompts, in percent:

    substitute_m = alpha + beta * official_m + u_m,    x_m = substitute_m + e_m,    y_m = official_m + f_m

e_m and f_m are the sampling errors of prompts; they are correlated, and their covariances (also between models, which answer
the same prompts) are known from the prompts. u_m, of standard deviation tau, is what the judge does to one model beyond the
line: a taste for its length or style.

The substitute is a distortion of the official judge, so the line is fitted in that direction and inverted for a new model:
classical calibration (Eisenhart 1939; Osborne, Statistical calibration: a review, Int. Stat. Rev. 1991). Unlike the regression
of official on substitute it does not pull a new model to the mean of the models at hand. Errors in y would pull beta to zero;
they are taken out as York's best line does with errors in both variables (York et al., Unified equations for the slope,
intercept, and standard errors of the best straight line, Am. J. Phys. 2004; Fuller, Measurement Error Models, 1987, section
3.1). tau^2 is the moment estimate of random-effects meta-regression (DerSimonian and Kacker 2007). Weights are the models' own
variances; the covariance of (alpha, beta) is the sandwich with all covariances between models. A new model's interval is
Fieller's (1954): the official rates that its substitute rate does not contradict. Its quantile is Student's, with the degrees
of freedom (K - 2) / share^2 of Satterthwaite, share being tau^2's part of the variance, as only that part is learnt from the K
models alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gshf_release.data.bootstrap import Interval
from gshf_release.errors import DataError

Array = NDArray[np.float64]
LEVEL = 0.9
LEAST_MODELS = 3
LEAST_PROMPTS = 20
ITERATIONS = 100
FLOOR = 1e-9
"""Added to variances, in percent squared, so that a judge equal to the official one is no division by zero."""


@dataclass(frozen=True, slots=True)
class RegressionLine:
    """substitute = alpha + beta * official, in percent, and how sure it is."""

    alpha: float
    beta: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    """Of (alpha, beta)."""
    tau: float
    """Standard deviation of a model's own deviation from the line, points of the substitute's win rate."""
    models: int
    noise: float
    """Mean sampling variance of a model's residual."""

    def beta_interval(self, level: float = LEVEL) -> Interval:
        """Return beta with its interval."""
        share = self.tau**2 / (self.tau**2 + self.noise)
        width = _quantile(level, self.models, share) * math.sqrt(self.covariance[1][1])
        return Interval(self.beta, self.beta - width, self.beta + width, level)

    def invert(self, substitute: float, variance: float, level: float = LEVEL, *, tau: bool = True) -> Interval:
        """Return the official rates that fit a substitute rate, by Fieller's method; not clipped to 0..100.

        Args:
            substitute: Win rate by the substitute, percent.
            variance: Squared standard error of it.
            level: Confidence level.
            tau: Whether it is a model's rate, which has its own deviation, or a point of the line.

        Raises:
            DataError: beta is not surely different from zero, so that the line cannot be inverted.
        """
        (c00, c01), (_, c11) = self.covariance
        own = self.tau**2 if tau else 0.0
        value = (substitute - self.alpha) / self.beta if self.beta else math.nan
        of_line = max(0.0, c00 + 2 * value * c01 + value**2 * c11)
        learnt = own + of_line * self.tau**2 / (self.tau**2 + self.noise)
        total = variance + own + of_line
        t = _quantile(level, self.models, learnt / total if total > 0 else 0.0)
        reach = substitute - self.alpha
        square = self.beta**2 - t**2 * c11
        if not square > 0:
            raise DataError("The slope is not surely different from zero: the line cannot be inverted.")
        middle = (reach * self.beta + t**2 * c01) / square
        rest = (reach**2 - t**2 * (variance + own + c00)) / square
        half = math.sqrt(max(0.0, middle**2 - rest))
        return Interval(value, middle - half, middle + half, level)


def fit(official: Array, substitute: Array) -> RegressionLine:
    """Return the line over models.

    Args:
        official: (prompts, models) official win rates of single comparisons, percent.
        substitute: (prompts, models) the substitute's on the same.

    Raises:
        DataError: There are too few models or prompts, or the official win rates do not differ.
    """
    prompts, models = official.shape
    require(models, prompts)
    x, y = substitute.mean(axis=0), official.mean(axis=0)
    joint = np.cov(substitute, official, rowvar=False) / prompts
    sxx, syy, syx = joint[:models, :models], joint[models:, models:], joint[models:, :models]
    if float(np.ptp(y)) == 0:
        raise DataError("All models have the same official win rate; a line needs models that differ in strength.")
    alpha, beta, adjusted = _york(x, y, sxx, syy, syx, 0.0)
    noise = _residual_covariance(beta, sxx, syy, syx)
    tau2 = _tau_squared(x - alpha - beta * y, adjusted, noise)
    if tau2 > 0:
        alpha, beta, adjusted = _york(x, y, sxx, syy, syx, tau2)
        noise = _residual_covariance(beta, sxx, syy, syx)
    design = np.column_stack([np.ones(models), adjusted])
    weights = 1 / (noise.diagonal() + tau2)
    weighted = design * weights[:, None]
    gain = np.linalg.solve(design.T @ weighted, weighted.T)
    covariance = gain @ (noise + tau2 * np.eye(models)) @ gain.T
    return RegressionLine(
        alpha=alpha,
        beta=beta,
        covariance=(
            (float(covariance[0, 0]), float(covariance[0, 1])),
            (float(covariance[1, 0]), float(covariance[1, 1])),
        ),
        tau=math.sqrt(tau2),
        models=models,
        noise=float(noise.diagonal().mean()),
    )


def require(models: int, prompts: int) -> None:
    """Refuse too little material.

    Raises:
        DataError: There are too few models or prompts.
    """
    if models < LEAST_MODELS:
        raise DataError(
            f"A calibration needs judgments of at least {LEAST_MODELS} models, found {models}.",
            hint="Give more annotations.json files, of models that differ in strength.",
        )
    if prompts < LEAST_PROMPTS:
        raise DataError(
            f"A calibration needs at least {LEAST_PROMPTS} prompts that all models share, found {prompts}.",
            hint="Raise --sample, or give complete annotation files.",
        )


def _residual_covariance(beta: float, sxx: Array, syy: Array, syx: Array) -> Array:
    """Return the covariance (models, models) of e - beta f."""
    found: Array = sxx - beta * (syx + syx.T) + beta**2 * syy + FLOOR * np.eye(len(sxx))
    return found


def _york(x: Array, y: Array, sxx: Array, syy: Array, syx: Array, tau2: float) -> tuple[float, float, Array]:
    """Return (alpha, beta, adjusted y): York's iteration with correlated errors, from the ordinary least-squares slope."""
    beta = float((y - y.mean()) @ x / ((y - y.mean()) @ (y - y.mean())))
    alpha, adjusted = 0.0, y
    for _ in range(ITERATIONS):
        variance = _residual_covariance(beta, sxx, syy, syx).diagonal() + tau2
        weights = 1 / variance
        share = weights / weights.sum()
        alpha = float(share @ (x - beta * y))
        residual = x - alpha - beta * y
        adjusted = y - (syx - beta * syy).diagonal() / variance * residual
        centred = (adjusted - share @ adjusted) * weights
        previous, beta = beta, float(centred @ x / (centred @ y))
        if abs(beta - previous) < 1e-12:
            break
    return float(share @ (x - beta * y)), beta, adjusted


def _tau_squared(residual: Array, adjusted: Array, noise: Array) -> float:
    """Return the moment estimate of tau^2: what the residuals vary beyond the sampling noise, at least 0."""
    weights = 1 / noise.diagonal()
    design = np.column_stack([np.ones(len(residual)), adjusted])
    weighted = design * weights[:, None]
    projection = np.diag(weights) - weighted @ np.linalg.solve(design.T @ weighted, weighted.T)
    excess = float(residual @ projection @ residual) - float(np.trace(projection @ noise))
    return max(0.0, excess / float(np.trace(projection)))


def _quantile(level: float, models: int, share: float) -> float:
    """Return the two-sided Student quantile for a variance of which `share` is learnt from the models alone."""
    from scipy.special import stdtrit

    freedom = (models - 2) / max(share, 1e-3) ** 2
    return float(stdtrit(freedom, (1 + level) / 2))
