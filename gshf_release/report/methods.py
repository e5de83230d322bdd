"""Several recipes side by side, over seeds: what each way of training reaches, and how far it went from the base for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gshf_release.data import statistics
from gshf_release.data.results import Cell, find, rows_of, select
from gshf_release.data.statistics import Estimate
from gshf_release.diagnostics.validation import BOUND
from gshf_release.evaluation.best_of import ROW as BEST_OF_ROW
from gshf_release.evaluation.temperature_curve import ROW as TEMPERATURE_ROW
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.recipe import Recipe
from gshf_release.report.seeds import JUDGES
from gshf_release.report.tables import Table
from gshf_release.run.stage import is_iteration

Seeds = Mapping[int, Sequence[Cell]]
DECODINGS = ("greedy", "T=0.7", "T=1")
CONTROL = "base"
"""The method of the control row: the base at a lower temperature beside its own answers at T=0.7."""
BEST_OF = "best of n of the base"
OFFLINE = "offline DPO"
TEMPERATURES = "base at lower temperatures"
UNTRAINED = (CONTROL, TEMPERATURES, BEST_OF)
"""Methods of rows that no training made."""


@dataclass(frozen=True, slots=True)
class MethodPoint:
    """One model of one method: means over seeds with the standard error across them."""

    method: str
    row: str
    divergence: Estimate | None
    """KL to the base in nats per response at temperature 1; of a best of n its upper bound."""
    gains: Mapping[tuple[str, str], Estimate]
    """`{(judge, decoding): gain over the base}`."""
    tokens: Estimate | None
    """Length at T=0.7; of a best of n at T=1."""
    cut: Estimate | None
    """Percent of answers at T=0.7 that the limit cut."""


SETTINGS = {
    "training.beta": "beta",
    "training.sft_weight": "NLL",
    "training.learning_rate": "rate",
    "loop.init": "init",
    "loop.history": "history",
    "loop.reference": "reference",
}
"""Recipe keys that tell two methods of one name apart, and what they are called."""


def label(recipe: Recipe) -> str:
    """Return what a method is called: its algorithm and how many iterations it has, for example `GSHF x3`."""
    if not recipe.loop.resample:
        return OFFLINE if recipe.loop.algorithm == "gshf" else "offline RAFT"
    return f"{recipe.loop.algorithm.upper()} x{recipe.loop.iterations}"


def labels(recipes: Sequence[Recipe]) -> list[str]:
    """Return the names of methods; those of one name are told apart by the settings in which they differ.

    For example `GSHF x5, beta 0.1, NLL 0.5` and `GSHF x5, beta 0.1, NLL 0`.
    """
    names = [label(recipe) for recipe in recipes]
    found = []
    for name, recipe in zip(names, recipes, strict=True):
        alike = [other for known, other in zip(names, recipes, strict=True) if known == name]
        differing = [key for key in SETTINGS if len({str(other.value(key)) for other in alike}) > 1]
        found.append(", ".join([name, *(f"{SETTINGS[key]} {_plain(recipe.value(key))}" for key in differing)]))
    return found


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def points(methods: Mapping[str, Seeds]) -> list[MethodPoint]:
    """Return every model of every method; what no training made once, from the first method."""
    found = []
    for number, (method, seeds) in enumerate(methods.items()):
        first = select(next(iter(seeds.values())), table="test")
        for row in rows_of(first):
            trained = is_iteration(row)
            if row != "base" and (trained or number == 0):
                found.append(_point(method if trained else _untrained(row), row, seeds))
    order = {method: place for place, method in enumerate((*UNTRAINED, *methods))}
    return sorted(found, key=lambda point: order[point.method])


def _untrained(row: str) -> str:
    if row.startswith(BEST_OF_ROW):
        return BEST_OF
    return TEMPERATURES if row.startswith(TEMPERATURE_ROW) else CONTROL


def method_table(methods: Mapping[str, Seeds]) -> Table:
    """Return gains under both scorers, divergence and length of every method, beside the best of n at equal divergence."""
    found = points(methods)
    header = ["method", "model", *(f"{judge}, {decoding}" for judge in JUDGES for decoding in DECODINGS)]
    header += ["KL, nats", "reward of best of n at this KL, T=1", "tokens", "cut %"]
    rows = []
    for point in found:
        gains = [_shown(point.gains.get((judge, decoding))) for judge in JUDGES for decoding in DECODINGS]
        rest = [_shown(point.divergence), equal_divergence(found, point), _shown(point.tokens, 0), _shown(point.cut, 0)]
        rows.append([point.method, point.row, *gains, *rest])
    seeds = sorted({seed for method in methods.values() for seed in method})
    count = max(
        entry.n or 0 for cells in next(iter(methods.values())).values() for entry in select(cells, table="test")
    )
    notes = [
        "Gains over the base at equal decoding: mean over seeds ± standard error across seeds. `base at T=...` is the "
        "untrained base at a lower temperature against itself at T=0.7, `base, T=...` against itself at T=1. The KL of a best "
        "of n is its upper bound log n - (n - 1) / n; between two n the reward is interpolated, and beyond the largest n "
        "nothing is known."
    ]
    return Table(f"Seeds {', '.join(map(str, seeds))}; n = {count} test prompts each", header, rows, notes)


def equal_divergence(found: Sequence[MethodPoint], point: MethodPoint) -> str:
    """Return the gain under the training reward of the best of n whose divergence is that of `point`."""
    if point.divergence is None or point.method in UNTRAINED:
        return "–"
    untrained = [
        (other.divergence.value, other.gains["reward", "T=1"].value)
        for other in found
        if other.method == BEST_OF and other.divergence is not None and ("reward", "T=1") in other.gains
    ]
    for (left, low), (right, high) in pairwise([(0.0, 0.0), *sorted(untrained)]):
        if left <= point.divergence.value <= right:
            return f"{low + (high - low) * (point.divergence.value - left) / (right - left):.2f}"
    return "beyond the largest n"


def _point(method: str, row: str, seeds: Seeds) -> MethodPoint:
    gains = {}
    for judge in JUDGES:
        for decoding in DECODINGS:
            place = {"table": "test", "metric": "gain over base", "judge": judge, "decoding": decoding}
            estimate = _over_seeds(seeds, row=row, **place)
            if estimate is not None:
                gains[judge, decoding] = estimate
    divergence = {
        BEST_OF: {"table": "test", "metric": BOUND},
        TEMPERATURES: {"table": "test", "metric": KL_TO_BASE},
    }.get(method, {"table": "validation", "metric": KL_TO_BASE})
    place = {"table": "test", "decoding": "T=1" if method in (BEST_OF, TEMPERATURES) else "T=0.7"}
    return MethodPoint(
        method=method,
        row=row,
        divergence=_over_seeds(seeds, row=row, **divergence),
        gains=gains,
        tokens=_over_seeds(seeds, row=row, metric="length", **place),
        cut=_over_seeds(seeds, row=row, metric="cut", **place),
    )


def _over_seeds(seeds: Seeds, **wanted: str) -> Estimate | None:
    """Return the mean over seeds, or None unless every seed has the cell."""
    found = [find(cells, **wanted) for cells in seeds.values()]
    values = [entry.value for entry in found if entry is not None and entry.value is not None]
    return statistics.mean(values) if len(values) == len(found) else None


def _shown(estimate: Estimate | None, digits: int = 2) -> str:
    if estimate is None:
        return "–"
    text = f"{estimate.value:.{digits}f}"
    return text if estimate.standard_error is None else f"{text} ± {estimate.standard_error:.{digits}f}"
