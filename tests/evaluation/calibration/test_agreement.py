"""Agreement of two judges against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.evaluation.calibration.agreement import Pairs, agreement, spearman


def pairs(official: list[float], substitute: list[float], longer: list[float] | None = None) -> Pairs:
    size = len(official)
    return Pairs(
        np.array(official),
        np.array(substitute),
        [str(number) for number in range(size)],
        np.array(longer or [0.0] * size),
        np.full(size, np.nan),
    )


def test_accuracy_is_of_the_pairs_that_both_decide() -> None:
    found = agreement(pairs([1, 0.9, 0.2, 0.5, 0.7], [0.8, 0.1, 0, 1, 0.5]))
    assert (found.pairs, found.decided) == (5, 3)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(100 * 2 / 3)


def test_kappa_by_hand() -> None:
    # Agreement 3/4; chance 3/4 * 2/4 + 1/4 * 2/4 = 1/2.
    found = agreement(pairs([1, 1, 1, 0], [1, 1, 0, 0]))
    assert found.kappa == pytest.approx(0.5)


def test_kappas_error_is_what_repeated_samples_show() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(200):
        first = (generator.random(200) < 0.4).astype(float)
        second = np.where(generator.random(200) < 0.8, first, 1 - first)
        found.append(agreement(pairs(first.tolist(), second.tolist())))
    spread = float(np.std([entry.kappa for entry in found]))
    assert np.mean([entry.kappa_error for entry in found]) == pytest.approx(spread, rel=0.15)


def test_judges_that_always_say_the_same_have_no_kappa() -> None:
    found = agreement(pairs([1, 1, 1], [1, 1, 1]))
    assert (found.kappa, found.kappa_error) == (None, None)


def test_length_bias_by_hand() -> None:
    # Towards the longer: 0 and -0.5 where the official judge took it, 0.5 and 1 where not; (-0.25 + 0.75) / 2. Equal lengths
    # do not count.
    found = agreement(pairs([1, 1, 0, 0, 1], [1, 0.5, 1, 0.5, 0], [1, -1, 1, -1, 0])).length_bias
    assert found is not None
    assert found.value == pytest.approx(25)
    # Each of the four deviates by 0.25 from its kind's mean and moves the result by 0.25 / (2 * 2).
    assert found.standard_error == pytest.approx(100 * (4 / 3 * 4 * (0.25 / 4) ** 2) ** 0.5)
    assert found.n == 4


def test_mere_noise_is_no_taste_for_length() -> None:
    # The official judge takes the longer answer in 90 %; a judge that turns a fifth of everything takes it in 74 %.
    generator = np.random.default_rng(2)
    longer = np.where(generator.random(4000) < 0.5, 1.0, -1.0)
    official = np.where((generator.random(4000) < 0.9) == (longer > 0), 1.0, 0.0)
    substitute = np.where(generator.random(4000) < 0.8, official, 1 - official)
    found = agreement(pairs(official.tolist(), substitute.tolist(), longer.tolist())).length_bias
    assert found is not None
    assert found.standard_error is not None
    assert abs(found.value) < 3 * found.standard_error


def test_without_orders_there_is_no_bias_by_position() -> None:
    assert agreement(pairs([1, 0], [1, 0])).position_bias is None


def test_spearman_by_hand() -> None:
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 5, 7, 9], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert spearman([1, 2], [3, 3]) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_kappa_is_at_most_one_and_symmetric(judged: list[tuple[bool, bool]]) -> None:
    first, second = [float(pair[0]) for pair in judged], [float(pair[1]) for pair in judged]
    found, turned = agreement(pairs(first, second)).kappa, agreement(pairs(second, first)).kappa
    assert found == (None if turned is None else pytest.approx(turned))
    assert found is None or -1 <= found <= 1 + 1e-12
