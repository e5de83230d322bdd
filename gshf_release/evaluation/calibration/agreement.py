"""Measure how far a substitute judge agrees with the official one on the same pairs of answers, and where it leans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gshf_release.data import statistics
from gshf_release.data.bootstrap import ranks
from gshf_release.data.statistics import Estimate
from gshf_release.evaluation.calibration.regression import Array


@dataclass(frozen=True, slots=True)
class Pairs:
    """Judgments of both judges on the same pairs; every array is (pairs,)."""

    official: Array
    """Preference for the model's answer, 0 to 1."""
    substitute: Array
    prompt: Sequence[str]
    """Pairs of one prompt are dependent: they form a cluster."""
    longer: Array
    """1 where the model's answer has more characters than the baseline's, -1 where fewer, 0 where equal."""
    first: Array
    """1 where the substitute saw the model's answer first, -1 where the baseline's, NaN where that is not known."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on single pairs. Shares and biases are in percent, with errors that keep a prompt's pairs together."""

    pairs: int
    decided: int
    """Pairs on which neither judge is undecided; accuracy and kappa are of these."""
    accuracy: Estimate | None
    kappa: float | None
    """Cohen's kappa of the two judges' winners."""
    kappa_error: float | None
    """Jackknife over prompts."""
    length_bias: Estimate | None
    """By how many points it leans to the longer answer, official verdicts for and against that answer weighted equally."""
    position_bias: Estimate | None
    """By how many points it leans to the answer it saw first, likewise; None if orders are not known."""


def agreement(pairs: Pairs) -> Agreement:
    """Return the agreement of two judges."""
    winner, other = np.sign(pairs.official - 0.5), np.sign(pairs.substitute - 0.5)
    decided = np.flatnonzero((winner != 0) & (other != 0)).tolist()
    names = [pairs.prompt[place] for place in decided]
    equal = (winner[decided] == other[decided]).astype(np.float64)
    kappa, error = _kappa((winner[decided] > 0).tolist(), (other[decided] > 0).tolist(), names)
    return Agreement(
        pairs=len(pairs.official),
        decided=len(decided),
        accuracy=statistics.percent(statistics.clustered_mean(equal.tolist(), names)) if len(decided) else None,
        kappa=kappa,
        kappa_error=error,
        length_bias=_leaning(pairs, pairs.longer),
        position_bias=_leaning(pairs, np.nan_to_num(pairs.first)),
    )


def spearman(official: Sequence[float], substitute: Sequence[float]) -> float | None:
    """Return Spearman's correlation of the models' win rates: Pearson's of their ranks; None if one side does not vary."""
    return statistics.pearson(ranks(official), ranks(substitute))


def _leaning(pairs: Pairs, side: Array) -> Estimate | None:
    """Return by how many points the substitute leans to the side that `side` marks, or None if one kind of pair is missing.

    side = 1 marks the model's answer, -1 the baseline's. On one pair it leans by side * (substitute - official). Mere noise
    turns some of the official judge's verdicts for that side and as large a share of those against it; with the two kinds
    weighted equally it cancels, and what is left is the taste. Without that, a noisy judge would seem to dislike whatever the
    official judge likes. The error adds up, per prompt, how much each pair moves the result: (value - its kind's mean) / (2 n).
    """
    marked = (side != 0) & (pairs.official != 0.5)
    kinds = [np.flatnonzero(marked & (side * (pairs.official - 0.5) * sign > 0)).tolist() for sign in (1, -1)]
    if not all(kinds):
        return None
    values = side * (pairs.substitute - pairs.official)
    moved: dict[str, float] = {}
    means = [float(values[kind].mean()) for kind in kinds]
    for kind, mean in zip(kinds, means, strict=True):
        for place in kind:
            name = pairs.prompt[place]
            moved[name] = moved.get(name, 0.0) + (float(values[place]) - mean) / (2 * len(kind))
    size = len(moved)
    error = math.sqrt(size / (size - 1) * sum(total**2 for total in moved.values())) if size > 1 else None
    return statistics.percent(Estimate(sum(means) / 2, error, sum(len(kind) for kind in kinds)))


def _kappa(first: Sequence[bool], second: Sequence[bool], clusters: Sequence[str]) -> tuple[float | None, float | None]:
    """Return Cohen's kappa of two binary annotators, and its delete-one-cluster jackknife error."""
    if not len(first):
        return None, None
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    tables = np.zeros((len(places), 2, 2))
    for name, one, other in zip(clusters, first, second, strict=True):
        tables[places[name], int(one), int(other)] += 1
    total = tables.sum(axis=0)
    (value,) = _kappas(total[None])
    if math.isnan(value):
        return None, None
    left_out = _kappas(total - tables)
    size = len(places)
    if size < 2 or np.isnan(left_out).any():
        return float(value), None
    return float(value), math.sqrt((size - 1) / size * float(((left_out - left_out.mean()) ** 2).sum()))


def _kappas(tables: Array) -> Array:
    """Return kappa of each table of counts (tables, 2, 2); NaN where chance alone gives full agreement.

    (p_o - p_e) / (1 - p_e) (Cohen, Educational and Psychological Measurement, 1960).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = tables / tables.sum(axis=(1, 2), keepdims=True)
        observed = share[:, 0, 0] + share[:, 1, 1]
        chance = (share.sum(axis=2) * share.sum(axis=1)).sum(axis=1)
        found: Array = np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
    return found
