"""The length-controlled win rate: a logistic model of the judge, asked what it would say if both answers were equally long.

After Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475), with the formula and the parameters of alpaca_eval's
`length_controlled_v1` (metrics/glm_winrate.py): preference ~ tanh(length difference) + instruction difficulty + model, an L1
penalty, its strength from a grid by five-fold cross-validation, and judgments of a gamed baseline as further rows.

Unlike there, the folds do not depend on how a machine sorts equal numbers: row r of n goes to fold (n - 1 - r) mod 5. That is
where a stable sort puts it, so the result is that of the library with scikit-learn 1.9 or later, on every machine.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gshf_release.evaluation.alpaca_eval.data import Array, GamedBaselines

FOLDS = 5
STRENGTHS = tuple(float(value) for value in np.logspace(-4, 4, 10))
"""scikit-learn's default grid of inverse penalties C."""
RANDOM_STATE = 123
"""The library's. liblinear visits the columns in an order drawn from it and stops before the optimum, so it shows."""
GAMED_WEIGHT = 0.2 / 2
"""Weight of each gamed row: the library's 0.2, shared by the two gamed baselines."""
EQUAL_LIKELIHOOD = 0.1
"""Strengths whose cross-validated log-likelihoods, over all rows, differ by less than this many nats are equally good: a
likelihood ratio below 1.11 decides nothing. On AlpacaEval's models it separates C >= 2.78 from the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A weighted logistic regression on shares, and where its prediction is wanted."""

    features: Array
    """(rows, features)"""
    target: Array
    """(rows,) preferences from 0 to 1."""
    weight: Array
    """(rows,)"""
    wanted: Array
    """(judged rows, features): the model's own rows at equal length."""


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate in percent, and what the choice of the penalty leaves open."""

    win_rate: float
    standard_error: float | None
    """As the library defines it: of the mean over instructions, the fitted weights taken as exact."""
    low: float
    """Least win rate over the equally good strengths."""
    high: float
    regularisation: float | None
    """The strength C that cross-validation chose; None where nothing was fitted."""
    coefficients: tuple[float, ...]
    """One a feature, at that strength; the last is the model's."""


def standardised_difference(baseline: Sequence[str], model: Sequence[str]) -> Array:
    """Return baseline's minus model's length in characters, divided by its standard deviation (ddof=1); 0 if it never varies.

    With no variation there is no length effect to learn from these rows, and the rows are compared as they are.
    """
    difference = np.asarray([len(a) - len(b) for a, b in zip(baseline, model, strict=True)], dtype=np.float64)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return difference / spread if spread > 0 else np.zeros_like(difference)


def published_problem(wins: Array, difference: Array, difficulty: Array, gamed: GamedBaselines) -> Problem:
    """Return the regression of `length_controlled_v1`: features length, difficulty and model; gamed rows come first.

    Args:
        wins: (rows,) preferences from 0 to 1, NaN where there is none: such a row is predicted but not fitted.
        difference: (rows,) standardised length differences.
        difficulty: (rows,) of the rows' instructions.
        gamed: Further rows, at which the model's feature is 0.
    """
    judged = ~np.isnan(wins)
    is_model = np.concatenate([np.zeros(len(gamed.preference)), np.ones(int(judged.sum()))])
    lengths = np.tanh(np.concatenate([gamed.length_difference, difference[judged]]))
    difficulties = np.concatenate([gamed.difficulty, difficulty[judged]])
    return Problem(
        features=np.column_stack([lengths, difficulties, is_model]),
        target=np.concatenate([gamed.preference, wins[judged]]),
        weight=np.where(is_model == 1, 1.0, GAMED_WEIGHT),
        wanted=np.column_stack([np.zeros(len(wins)), difficulty, np.ones(len(wins))]),
    )


def minimal_problem(wins: Array, difference: Array) -> Problem:
    """Return the regression without anything borrowed (the library's `length_controlled_minimal`): length and model only."""
    judged = ~np.isnan(wins)
    ones = np.ones(int(judged.sum()))
    return Problem(
        features=np.column_stack([np.tanh(difference[judged]), ones]),
        target=wins[judged],
        weight=ones,
        wanted=np.column_stack([np.zeros(len(wins)), np.ones(len(wins))]),
    )


def solve(problem: Problem) -> LengthControlled:
    """Choose the strength, fit, and predict.

    Raises:
        ValueError: There are fewer rows than folds.
    """
    if len(problem.target) < FOLDS:
        raise ValueError(
            f"{FOLDS}-fold cross-validation needs at least {FOLDS} judgments, there are {len(problem.target)}"
        )
    import sklearn

    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # a third of the time otherwise
        losses = cross_validated(problem)
        return _solved(problem, losses)


def _solved(problem: Problem, losses: Array) -> LengthControlled:
    chosen = int(losses.argmin())
    good = np.flatnonzero((losses - losses[chosen]) * len(problem.target) <= EQUAL_LIKELIHOOD)
    every = slice(None)
    fits = {int(number): _fit(problem, STRENGTHS[number], every) for number in good}
    rates = {number: _predict(problem.wanted, fit) for number, fit in fits.items()}
    means = [100 * float(rate.mean()) for rate in rates.values()]
    predicted = rates[chosen]
    count = len(predicted)
    error = 100 * float(predicted.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return LengthControlled(
        win_rate=100 * float(predicted.mean()),
        standard_error=error,
        low=min(means),
        high=max(means),
        regularisation=STRENGTHS[chosen],
        coefficients=tuple(float(value) for value in fits[chosen]),
    )


def cross_validated(problem: Problem) -> Array:
    """Return the weighted log-loss of each strength, the mean over folds, (strengths,)."""
    count = len(problem.target)
    fold_of = (count - 1 - np.arange(count)) % FOLDS
    losses = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        held_out = fold_of == fold
        for number, strength in enumerate(STRENGTHS):
            predicted = _predict(problem.features[held_out], _fit(problem, strength, ~held_out))
            losses[number] += _loss(problem.target[held_out], predicted, problem.weight[held_out]) / FOLDS
    return losses


def intercept_error(problem: Problem, coefficients: Sequence[float]) -> float | None:
    """Return the standard error, in percent, of the predicted win rate of a regression without difficulties.

    There every row is predicted the same, so the library's definition gives 0. This is the sandwich estimate of the model
    coefficient's variance (White 1982) carried through the logistic function; None if the fit does not determine it.
    """
    share = _predict(problem.features, np.asarray(coefficients))
    curvature = (problem.features * (problem.weight * share * (1 - share))[:, None]).T @ problem.features
    scores = problem.features * (problem.weight * (problem.target - share))[:, None]
    used = np.flatnonzero(np.abs(problem.features).sum(axis=0) > 0)
    try:
        inverse = np.linalg.inv(curvature[np.ix_(used, used)])
    except np.linalg.LinAlgError:
        return None
    variance = (inverse @ (scores[:, used].T @ scores[:, used]) @ inverse)[-1, -1]
    at_zero = float(_predict(problem.wanted[:1], np.asarray(coefficients))[0])
    error = 100 * at_zero * (1 - at_zero) * math.sqrt(max(float(variance), 0.0))
    return error if math.isfinite(error) else None


def _fit(problem: Problem, strength: float, rows: Any) -> Array:
    """Return the coefficients, (features,).

    scikit-learn wants classes: each row stands there as a win and as a loss, weighted by its share of either. liblinear's
    result depends on the rows' order, which is the library's.
    """
    features, target, weight = problem.features[rows], problem.target[rows], problem.weight[rows]
    classes = np.concatenate([np.ones(len(target)), np.zeros(len(target))])
    shares = np.concatenate([target * weight, (1 - target) * weight])
    rows_of_both = np.vstack([features, features])
    missing = [label for label in (0.0, 1.0) if not shares[classes == label].any()]
    if (
        missing
    ):  # liblinear complains on stdout; a row of zeros has the class, and no coefficient changes its likelihood
        rows_of_both = np.vstack([rows_of_both, np.zeros((1, features.shape[1]))])
        classes, shares = np.append(classes, missing[0]), np.append(shares, 1.0)
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published numbers stop there, too
        model = _regression(strength).fit(rows_of_both, classes, sample_weight=shares)
    coefficients: Array = model.coef_[0]
    return coefficients


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    arguments: dict[str, Any] = {
        "C": strength,
        "solver": "liblinear",
        "fit_intercept": False,
        "random_state": RANDOM_STATE,
    }
    return LogisticRegression(**arguments, **_l1())


@cache
def _l1() -> dict[str, Any]:
    """Return how the installed scikit-learn is told to use an L1 penalty."""
    from sklearn.linear_model import LogisticRegression

    penalty = inspect.signature(LogisticRegression).parameters.get("penalty")
    deprecated = penalty is None or penalty.default == "deprecated"  # since scikit-learn 1.8
    return {"l1_ratio": 1.0} if deprecated else {"penalty": "l1"}


def _predict(features: Array, coefficients: npt.NDArray[np.float64]) -> Array:
    scores: Array = features @ coefficients
    shares: Array = np.exp(-np.logaddexp(0.0, -scores))
    return shares


def _loss(target: Array, predicted: Array, weight: Array) -> float:
    shares = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-np.mean(weight * (target * np.log(shares) + (1 - target) * np.log(1 - shares))))
