"""Which gains stand: hand-computed values, and the rate of false claims in simulated runs that gained nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from gshf_release.data import statistics
from gshf_release.data.results import Cell
from gshf_release.diagnostics.significance import DECODINGS, JUDGES, LEVEL, family, gains, p_value, significant
from gshf_release.diagnostics.verdict import diagnose
from tests.diagnostics.rows import GREEDY, REWARD, SECOND, WARM

Draw = Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[np.float64]]
RUNS = 400


def gain(value: float, error: float | None = 1.0, n: int | None = 16, **place: str) -> Cell:
    where = {"table": "test", "row": "iteration-1", "judge": REWARD, "decoding": GREEDY} | place
    return Cell(metric="gain over base", value=value, standard_error=error, n=n, **where)


@pytest.mark.parametrize(
    ("value", "n", "p"),
    [(2.131450, 16, 0.025), (1.985251, 96, 0.025), (12.706205, 2, 0.25), (0.0, 16, 0.5), (-2.131450, 16, 0.975)],
    ids=["t15", "t95", "two pairs prove no more than a quarter", "nothing", "a loss"],
)
def test_p_is_student_s(value: float, n: int, p: float) -> None:
    """Quantiles from tables of Student's t: t(0.975, 15) = 2.13145, t(0.975, 95) = 1.98525, t(0.975, 1) = 12.7062."""
    assert p_value(gain(value, n=n)) == pytest.approx(p, abs=1e-6)


def test_a_gain_without_error_or_count_proves_nothing() -> None:
    assert p_value(gain(9.0, error=None)) == p_value(gain(9.0, n=None)) == p_value(gain(9.0, n=1)) == 1.0
    assert not significant(None)


def test_equal_differences_prove_what_their_signs_prove() -> None:
    assert p_value(gain(1.0, error=0.0, n=3)) == 0.125
    assert p_value(gain(0.0, error=0.0, n=3)) == 1.0


def test_holm_by_hand() -> None:
    """0.01 <= 0.05 / 4, 0.013 <= 0.05 / 3, 0.03 > 0.05 / 2: the third fails, and so does all behind it."""
    assert statistics.holm([0.03, 0.01, 0.04, 0.013], 0.05) == [False, True, False, True]
    assert statistics.holm([], 0.05) == []


def test_the_primary_gain_of_the_last_iteration_has_half_of_the_level() -> None:
    """t(0.9875, 95) is 2.277: 2.3 standard errors stand there, and among 8 others nothing below t(0.0125 / 7) = 2.98 does."""
    others = [gain(2.3, n=96, judge=judge, decoding=decoding) for judge in JUDGES for decoding in DECODINGS]
    later = [other.model_copy(update={"row": "iteration-2"}) for other in others]
    found = family([*others, *later])
    assert len(found.tested) == 8
    assert found.primary == later[0]
    assert found.standing == {later[0].key}


def test_the_others_have_the_whole_level_if_the_primary_gain_stands() -> None:
    """Of four, the best other needs p <= 0.025 / 3 then (t(95) = 2.435), and 0.0125 / 3 (2.696) if the primary fails."""
    others = [gain(2.5, n=96, judge=REWARD, decoding=WARM), gain(0.0, n=96, judge=SECOND)]
    others.append(gain(0.0, n=96, judge=SECOND, decoding=WARM))
    assert family([gain(2.5, n=96), *others]).stands(others[0])
    assert not family([gain(1.0, n=96), *others]).stands(others[0])


def test_validation_controls_and_other_decodings_are_not_in_the_family() -> None:
    aside = [gain(9.0, table="validation"), gain(9.0, decoding="T=1"), gain(9.0, row="base at T=0.3")]
    aside.append(gain(9.0).model_copy(update={"metric": "gain over control"}))
    assert gains(aside) == []
    assert family(aside).standing == frozenset()


def test_iterations_are_ordered_by_number() -> None:
    found = family([gain(5.0, row="iteration-10"), gain(5.0, row="iteration-9")]).primary
    assert found is not None
    assert found.row == "iteration-10"


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return generator.normal(size=shape)


def shares_of_rules(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return differences of a reward that is 0, a half or 1: mostly ties."""
    first, second = (generator.choice([0.0, 0.5, 1.0], p=[0.6, 0.3, 0.1], size=shape) for _ in range(2))
    return first - second


def heavy(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return differences with a few very large ones."""
    return generator.standard_t(3, size=shape)


def no_effect(differences: npt.NDArray[np.float64]) -> list[Cell]:
    """Return the cells of a run whose paired differences these are, by iteration, set, scorer, decoding and prompt."""
    cells = []
    for place in np.ndindex(*differences.shape[:-1]):
        iteration, table, judge, decoding = place
        cells.append(
            gain(
                *statistics.mean(differences[place].tolist()),
                table=("test", "eval")[table],
                row=f"iteration-{iteration + 1}",
                judge=(REWARD, SECOND)[judge],
                decoding=(GREEDY, WARM)[decoding],
            )
        )
    return cells


def claims(cells: list[Cell]) -> bool:
    """Return whether any verdict on the run, of any iteration on any set of prompts, speaks of a gain."""
    places = {(entry.table, entry.row) for entry in cells}
    return any(diagnose(cells, table, row).kind != "nothing" for table, row in places)


@pytest.mark.parametrize("n", [16, 96])
@pytest.mark.parametrize(("iterations", "sets"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("draw", [normal, shares_of_rules, heavy])
@pytest.mark.parametrize("shared", [0.0, 0.7], ids=["independent", "alike"])
def test_a_run_that_gained_nothing_is_said_to_have_gained_in_at_most_five_percent(
    n: int, iterations: int, sets: int, draw: Draw, shared: float
) -> None:
    generator = np.random.default_rng(n + 10 * iterations)
    said = 0
    for _ in range(RUNS):
        own = draw(generator, (iterations, sets, 2, 2, n))
        common = draw(generator, (1, sets, 1, 1, n))  # the same prompts, so iterations, scorers and decodings are alike
        said += claims(no_effect(math.sqrt(1 - shared) * own + math.sqrt(shared) * common))
    assert said / RUNS <= 0.05
    assert said / RUNS <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / RUNS)


def test_a_gain_of_five_standard_errors_is_claimed_on_every_iteration() -> None:
    generator = np.random.default_rng(7)
    cells = no_effect(generator.normal(5 / math.sqrt(96), 1.0, size=(3, 2, 2, 2, 96)))
    assert {diagnose(cells, "test", f"iteration-{t}").kind for t in (1, 2, 3)} <= {"learned", "gained in part"}
