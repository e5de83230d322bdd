"""Compare two ways of training at one divergence: the primary endpoint of docs/learning.md.

Both give a curve of policies, each with a KL to the base and a list of prompts passed. The question is which passes more
prompts at the divergence where the baseline saturates.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gshf_release.data import statistics
from gshf_release.data.results import Cell, find, read_cells
from gshf_release.data.statistics import Estimate
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.report.kept import PASSED, read_passed
from gshf_release.report.methods import OFFLINE
from gshf_release.report.table import Table
from gshf_release.run.stage import is_iteration

DECODING = "T=1"
"""The KL is that of sampling at temperature 1."""


class CurvePoint(NamedTuple):
    """Holds one policy of a method."""

    row: str
    divergence: float
    """KL to the base, nats per response."""
    validation: float
    """Mean reward on the validation prompts, which choose; the test prompts do not."""
    passed: list[float]
    """1 or 0 for each test prompt."""


class Comparison(NamedTuple):
    """Records how a method and its baseline compare on one seed at the divergence where the baseline saturates."""

    saturated: str
    """The baseline's checkpoint."""
    divergence: float
    difference: Estimate
    """Of the pass rates, method minus baseline, paired by prompt."""
    method_rate: float
    baseline_rate: float


def read_curve(folder: Path) -> list[CurvePoint]:
    """Return the base and every iteration of a kept run, in order."""
    cells, passed = read_cells(folder / "results.json"), read_passed(folder)
    return [
        CurvePoint(row, _divergence(cells, row), _validation(cells, row), passed.shares(row, DECODING))
        for row in passed.by_row[DECODING]
        if row == "base" or is_iteration(row)
    ]


def at_divergence(curve: Sequence[CurvePoint], divergence: float) -> list[float]:
    """Return the pass rate of each prompt at a divergence, between the two policies around it.

    The policies are taken in order of their divergence. Beyond the largest one that policy's own rate is returned: it then
    stands at less divergence than asked for, which is no advantage.
    """
    ranked = sorted(curve, key=lambda point: point.divergence)
    for left, right in itertools.pairwise(ranked):
        if left.divergence <= divergence <= right.divergence:
            share = (divergence - left.divergence) / max(right.divergence - left.divergence, 1e-12)
            return [(1 - share) * low + share * high for low, high in zip(left.passed, right.passed, strict=True)]
    return ranked[-1].passed


def compare(method: Sequence[CurvePoint], baseline: Sequence[CurvePoint]) -> Comparison:
    """Return the comparison at the checkpoint of the baseline with the highest validation reward (the first of equals)."""
    saturated = max(baseline, key=lambda point: point.validation)
    own = at_divergence(method, saturated.divergence)
    return Comparison(
        saturated.row,
        saturated.divergence,
        statistics.paired_difference(own, saturated.passed),
        statistics.mean(own).value,
        statistics.mean(saturated.passed).value,
    )


def comparison_tables(methods: Mapping[str, Mapping[int, Path]]) -> list[Table]:
    """Return a table for every method beside its offline baseline with the same settings, if all their runs are kept.

    Args:
        methods: `{name as report.methods.labels gives it: {seed: folder}}`.
    """
    tables = []
    for name, folders in methods.items():
        algorithm, _, settings = name.partition(", ")
        baseline = ", ".join(filter(None, [OFFLINE, settings]))
        others = methods.get(baseline, {})
        shared = [seed for seed in folders if seed in others]
        kept = all((folder / PASSED).is_file() for seed in shared for folder in (folders[seed], others[seed]))
        if algorithm.startswith(OFFLINE) or not shared or not kept:
            continue
        by_seed = {seed: compare(read_curve(folders[seed]), read_curve(others[seed])) for seed in shared}
        title = f"Pass rate at T=1 where {baseline} saturates: {name} minus {baseline}"
        tables.append(comparison_table(title, by_seed))
    return tables


def comparison_table(title: str, by_seed: Mapping[int, Comparison]) -> Table:
    """Return the seeds' differences with their errors across prompts, and the mean with its error across seeds."""
    rows = [
        [
            str(seed),
            found.saturated,
            f"{found.divergence:.1f}",
            f"{100 * found.method_rate:.0f}",
            f"{100 * found.baseline_rate:.0f}",
            _points(found.difference),
        ]
        for seed, found in by_seed.items()
    ]
    mean = statistics.mean([found.difference.value for found in by_seed.values()])
    rows.append(["mean", "", "", "", "", _points(mean)])
    return Table(
        title,
        ["seed", "baseline saturates at", "KL, nats", "method %", "baseline %", "difference, points"],
        rows,
        [
            "A seed's ± is its standard error across prompts, paired; that of the mean is the standard error across seeds."
        ],
    )


def _points(estimate: Estimate) -> str:
    error = "" if estimate.standard_error is None else f" ± {100 * estimate.standard_error:.1f}"
    return f"{100 * estimate.value:.1f}{error}"


def _divergence(cells: Sequence[Cell], row: str) -> float:
    entry = find(cells, table="validation", row=row, metric=KL_TO_BASE)
    return 0.0 if row == "base" or entry is None or entry.value is None else entry.value


def _validation(cells: Sequence[Cell], row: str) -> float:
    entry = find(cells, table="validation", row=row, metric="score", decoding=DECODING)
    return float("-inf") if entry is None or entry.value is None else entry.value
