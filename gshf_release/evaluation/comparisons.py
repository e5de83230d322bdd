"""Two models, iterations or judges on the same prompts: the paired difference, and how sure it is.

compare(alpaca_eval_wins(rows_of_iteration_3), alpaca_eval_wins(rows_of_iteration_2), seed=0)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gshf_release.data import bootstrap, statistics
from gshf_release.data.bootstrap import Interval, JudgeNoise, SignTest
from gshf_release.data.statistics import Estimate
from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.annotations import Annotation

Item = TypeVar("Item", str, tuple[int, int])


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first minus the second, over what both have."""

    difference: Estimate
    """With the paired, cluster-robust standard error; n is the number of pairs."""
    interval: Interval
    """BCa bootstrap; clusters are resampled."""
    sign_test: SignTest
    """Of the clusters' differences."""
    minimal_detectable: float | None
    """True difference that a test at 5 % would find with a probability of 80 % on as many pairs."""
    only_first: int
    """Items that only the first has; they are left out."""
    only_second: int


def compare(
    first: Mapping[Item, float],
    second: Mapping[Item, float],
    *,
    seed: int,
    clusters: Mapping[Item, str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """Return the paired comparison of two models' values by item.

    Args:
        first: `{item: value}`.
        second: The other's.
        seed: The run's seed.
        clusters: Which items belong together; None takes each for itself.
        level: Of the interval.

    Raises:
        DataError: They share fewer than two clusters.
    """
    shared = [item for item in first if item in second]
    names = [str(item) if clusters is None else clusters[item] for item in shared]
    if len(set(names)) < 2:
        raise DataError(
            f"The two share {len(set(names))} prompts; a comparison needs two or more.",
            hint="Compare models that answered the same prompts.",
        )
    differences = [first[item] - second[item] for item in shared]
    estimate = statistics.clustered_mean(differences, names)
    error = estimate.standard_error
    sums: dict[str, float] = {}
    for name, difference in zip(names, differences, strict=True):
        sums[name] = sums.get(name, 0.0) + difference
    return Comparison(
        difference=estimate,
        interval=bootstrap.cluster_bootstrap(differences, names, seed=seed, level=level),
        sign_test=bootstrap.sign_test(list(sums.values())),
        minimal_detectable=None if error is None else bootstrap.minimal_detectable_difference(error),
        only_first=len(first) - len(shared),
        only_second=len(second) - len(shared),
    )


def alpaca_eval_wins(rows: Sequence[Annotation]) -> dict[str, float]:
    """Return `{instruction: win in percent}`; rows without a judgment are left out, repeats are averaged."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.win is not None:
            found.setdefault(row.instruction, []).append(100 * row.win)
    return {item: sum(values) / len(values) for item, values in found.items()}


def alpaca_eval_noise(repeats: Sequence[Sequence[Annotation]]) -> JudgeNoise | None:
    """Return the judge's noise, in percent, from the rows of several repeats; None without repeats."""
    found: dict[str, list[float]] = {}
    for rows in repeats:
        for item, win in alpaca_eval_wins(rows).items():
            found.setdefault(item, []).append(win)
    return bootstrap.judge_noise(found)


def mt_bench_means(values: Mapping[tuple[int, int, int], float]) -> dict[tuple[int, int], float]:
    """Return `{(question, turn): mean over the repeats}` of ratings or points by (question, turn, repeat)."""
    return {item: math.fsum(found) / len(found) for item, found in _repeats(values).items()}


def mt_bench_noise(values: Mapping[tuple[int, int, int], float]) -> JudgeNoise | None:
    """Return the judge's noise from ratings or points by (question, turn, repeat); None without repeats."""
    return bootstrap.judge_noise({str(item): found for item, found in _repeats(values).items()})


def questions(items: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return `{(question, turn): question}`, the clusters of MT-Bench."""
    return {item: str(item[0]) for item in items}


def _repeats(values: Mapping[tuple[int, int, int], float]) -> dict[tuple[int, int], list[float]]:
    found: dict[tuple[int, int], list[float]] = {}
    for (question, turn, _), value in values.items():
        found.setdefault((question, turn), []).append(value)
    return found
