"""How far a substitute judge agrees with the official one on the same pairs of answers, and where it leans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gshf_release import statistics
from gshf_release.evaluation.calibration.line import Array
from gshf_release.resampling import ranks
from gshf_release.statistics import Estimate


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
    """How much more than the official judge it prefers the longer answer, in points."""
    position_bias: Estimate | None
    """How much more than the official judge it prefers the answer it saw first, in points; None if orders are not known."""


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
    """Return how many points more than the official judge the substitute prefers the side that `side` marks.

    side = 1 marks the model's answer, -1 the baseline's; its preference is p or 1 - p. Their difference on one pair is
    side * (substitute - official), so that what both judges rightly see in the longer or first answer cancels.
    """
    marked = np.flatnonzero(side).tolist()
    if not marked:
        return None
    differences = side[marked] * (pairs.substitute - pairs.official)[marked]
    names = [pairs.prompt[place] for place in marked]
    return statistics.percent(statistics.clustered_mean(differences.tolist(), names))


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
