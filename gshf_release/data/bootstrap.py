"""Compute bootstrap intervals, sign tests, judge noise and minimal detectable differences for comparisons.

Intervals are BCa (bias-corrected and accelerated; Efron, Better bootstrap confidence intervals, JASA 1987, and Efron and
Tibshirani, An Introduction to the Bootstrap, chapter 14): win rates near 0 or 100 % have skewed means, for which the plain
percentile interval leans to the wrong side, and the acceleration of a mean costs one pass over the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gshf_release.data.hashing import seed_from

DRAWS = 4000
BLOCK = 2_000_000
"""Most resampling counts held in memory at once."""
Array = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float
    level: float
    """Confidence level, a share."""


class SignTest(NamedTuple):
    """Records how many paired differences are above and below zero, and how surprising that is if both were equally likely."""

    wins: int
    losses: int
    ties: int
    p: float
    """Two-sided, exact; ties are left out."""


class JudgeNoise(NamedTuple):
    """Records how much of a mean's uncertainty comes from the judge's not repeating itself."""

    within_variance: float
    """Variance of one judgment of the same item around the item's mean, pooled over items."""
    standard_error: float
    """Of the mean over items of each item's mean judgment."""
    share: float
    """Share of the squared standard error that the judge's noise makes up, 0 to 1; more repeats remove this part alone."""
    without_noise: float
    """Standard error that would be left after endlessly many repeats."""
    items: int
    judgments: int


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[str | int],
    *,
    seed: int,
    level: float = 0.95,
    draws: int = DRAWS,
) -> Interval:
    """Return the pooled mean of values that come in clusters, with its BCa interval; whole clusters are resampled.

    MT-Bench's average is such a mean: a question is a cluster of two turns, fewer where a judgment could not be read. For the
    difference of two models pass the differences of their scores by question and turn.

    Raises:
        ValueError: The two differ in length, or there are fewer than two clusters.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    totals: dict[str | int, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        totals.setdefault(cluster, []).append(value)
    sums = np.array([math.fsum(found) for found in totals.values()])
    counts = np.array([len(found) for found in totals.values()], dtype=np.float64)
    return _bca(sums, counts, seed=seed, level=level, draws=draws)


def sign_test(differences: Sequence[float]) -> SignTest:
    """Return the exact two-sided sign test of paired differences.

    p = 2 P(Binomial(wins + losses, 1/2) <= the smaller of the two), at most 1.
    """
    wins = sum(difference > 0 for difference in differences)
    losses = sum(difference < 0 for difference in differences)
    decided = wins + losses
    tail = sum(math.comb(decided, count) for count in range(min(wins, losses) + 1))
    return SignTest(wins, losses, len(differences) - decided, min(1.0, 2 * tail / 2**decided))


def judge_noise(repeats: Mapping[str, Sequence[float]]) -> JudgeNoise | None:
    """Return the judge's noise from repeated judgments of the same items.

    With s² the within-item variance pooled over items of at least two judgments, and r_i judgments of item i, the mean over n
    items carries the judge's noise s² sum(1 / r_i) / n²; the squared standard error of that mean, the variance of the item
    means over n, contains it. One-way random-effects analysis of variance (Searle, Casella and McCulloch, Variance Components,
    chapter 3).

    Args:
        repeats: `{item: its judgments}`.

    Returns:
        The noise; None with fewer than two items or no item judged twice.
    """
    items = [np.asarray(found, dtype=np.float64) for found in repeats.values() if len(found)]
    freedom = sum(len(found) - 1 for found in items)
    if len(items) < 2 or freedom == 0:
        return None
    within = sum(float(((found - found.mean()) ** 2).sum()) for found in items) / freedom
    means = np.array([found.mean() for found in items])
    total = float(means.var(ddof=1)) / len(items)
    noise = within * sum(1 / len(found) for found in items) / len(items) ** 2
    share = min(1.0, noise / total) if total > 0 else 0.0
    left = math.sqrt(max(0.0, total - noise))
    return JudgeNoise(within, math.sqrt(total), share, left, len(items), sum(len(found) for found in items))


def minimal_detectable_difference(standard_error: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """Return the true paired difference that a two-sided test at `level` finds with probability `power`.

    (z(1 - level / 2) + z(power)) times the standard error of the paired difference; the unit is that of the error.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * standard_error


def ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from 1 on; equal values share their average rank."""
    array = np.asarray(values, dtype=np.float64)
    return [float((array < value).sum() + ((array == value).sum() + 1) / 2) for value in array]


def _bca(sums: Array, counts: Array, *, seed: int, level: float, draws: int) -> Interval:
    """Return sum(sums) / sum(counts) with its BCa interval over the clusters."""
    size = len(sums)
    if size < 2:
        raise ValueError(f"a bootstrap needs at least two prompts or clusters, found {size}")
    value = float(sums.sum() / counts.sum())
    if np.ptp(sums - value * counts) <= 1e-12 * max(1.0, abs(value)):  # every resample gives the same mean
        return Interval(value, value, value, level)
    found = np.sort(_resampled(sums, counts, seed, draws))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    pulls = left_out.mean() - left_out
    acceleration = float((pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5))
    below = float(((found < value).sum() + (found == value).sum() / 2) / draws)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / draws), 1 - 1 / draws))
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(tail)
        ends.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(found, ends)
    return Interval(value, float(low), float(high), level)


def _resampled(sums: Array, counts: Array, seed: int, draws: int) -> Array:
    """Return the pooled mean of each resample: how often each cluster is drawn, times what it holds."""
    size = len(sums)
    generator = np.random.default_rng(seed_from(seed, "bootstrap"))
    block = max(1, BLOCK // size)
    found = []
    for begin in range(0, draws, block):
        drawn = generator.integers(0, size, (min(block, draws - begin), size))
        found.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(found)
