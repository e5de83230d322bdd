"""Means and win rates with their standard errors, paired where the data are paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with its standard error (None below two values) and the number of values."""

    value: float
    standard_error: float | None
    n: int


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean and its standard error, sd(ddof=1)/sqrt(n).

    Raises:
        ValueError: `values` is empty.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("mean of no values")
    error = float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else None
    return Estimate(float(array.mean()), error, int(array.size))


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """Return the mean of values that come in clusters (several from one prompt), with the cluster-robust standard error.

    sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n for G clusters and n values; None below two clusters.

    Raises:
        ValueError: The two differ in length, or there are none.
    """
    plain = mean(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - plain.value
    if len(sums) < 2:
        return plain._replace(standard_error=None)
    scale = len(sums) / (len(sums) - 1)
    return plain._replace(standard_error=math.sqrt(scale * sum(total**2 for total in sums.values())) / plain.n)


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Return the mean of `values[i] - baseline[i]` with its paired standard error.

    Raises:
        ValueError: The two differ in length.
    """
    if len(values) != len(baseline):
        raise ValueError(f"paired samples differ in length: {len(values)} and {len(baseline)}")
    return mean([value - other for value, other in zip(values, baseline, strict=True)])


def win_rate(preferences: Sequence[float]) -> Estimate:
    """Return the win rate in percent; a preference is 1 for a win, 0 for a loss, 0.5 for a tie."""
    return percent(mean(preferences))


def percent(share: Estimate) -> Estimate:
    """Return a share as a percentage."""
    error = None if share.standard_error is None else 100 * share.standard_error
    return Estimate(100 * share.value, error, share.n)


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Pearson's correlation of paired values, in [-1, 1]; None if one side does not vary.

    Raises:
        ValueError: The two differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"paired values differ in number: {len(x)} and {len(y)}")
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    first, second = (np.asarray(values, dtype=np.float64) - np.mean(values) for values in (x, y))
    return float(np.clip(first @ second / math.sqrt((first @ first) * (second @ second)), -1.0, 1.0))


def mean_at_zero(values: Sequence[float], covariate: Sequence[float]) -> Estimate | None:
    """Return the mean of `values` where `covariate` would be zero: the intercept of an ordinary least-squares line.

    With differences between two answers as values and a difference in some property as the covariate, it is what would be left
    of the mean difference if the two had the property alike. Standard error sqrt(RSS / (n - 2) * (1/n + m^2 / S)), m and S the
    covariate's mean and its sum of squared deviations (the textbook error of an intercept, e.g. Draper and Smith, Applied
    Regression Analysis, chapter 1).

    Returns:
        The estimate; the plain mean if the covariate is zero throughout; None below three values, or if the covariate is the
        same non-zero number throughout, since the line is then not determined.

    Raises:
        ValueError: The two differ in length, or there are none.
    """
    if len(values) != len(covariate):
        raise ValueError(f"paired values differ in number: {len(values)} and {len(covariate)}")
    if not any(covariate):
        return mean(values)
    y, x = np.asarray(values, dtype=np.float64), np.asarray(covariate, dtype=np.float64)
    if len(y) < 3 or len(set(covariate)) < 2:
        return None
    deviations = x - x.mean()
    spread = float(deviations @ deviations)
    slope = float(deviations @ y) / spread
    residuals = y - y.mean() - slope * deviations
    variance = float(residuals @ residuals) / (len(y) - 2)
    error = math.sqrt(variance * (1 / len(y) + float(x.mean()) ** 2 / spread))
    return Estimate(float(y.mean() - slope * x.mean()), error, len(y))


def clustered_error(clusters: Sequence[Sequence[float]]) -> float | None:
    """Return the standard error of the pooled mean of values that come in clusters, here the turns of a question.

    It is the sandwich estimator with the factor G / (G - 1) for G clusters; with one value each, the usual standard error of a
    mean. None for fewer than two clusters.
    """
    count, groups = sum(map(len, clusters)), len(clusters)
    if groups < 2:
        return None
    mean = math.fsum(value for cluster in clusters for value in cluster) / count
    squares = math.fsum(math.fsum(value - mean for value in cluster) ** 2 for cluster in clusters)
    return math.sqrt(squares * groups / (groups - 1)) / count


def student_p(value: float, standard_error: float, n: int) -> float:
    """Return the probability that a mean of n values is so far above zero by chance (one-sided Student's t, n - 1 degrees).

    Without any spread it is 0 above zero and 1 elsewhere.

    Raises:
        ValueError: There are fewer than two values.
    """
    from scipy.special import stdtr

    if n < 2:
        raise ValueError("Student's t needs two values")
    if standard_error == 0.0:
        return 0.0 if value > 0 else 1.0
    return float(stdtr(n - 1, -value / standard_error))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which hypotheses are rejected so that at most `level` of runs reject a true one (Holm, Scand. J. Statist. 1979).

    The smallest p is held against level / m, the next against level / (m - 1), and so on until one fails.
    """
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        if p_values[place] > level / (len(order) - rank):
            break
        rejected[place] = True
    return rejected
