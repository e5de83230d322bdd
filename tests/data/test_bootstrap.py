"""Bootstrap intervals, the sign test and judge noise against values worked out by hand, and against simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data.bootstrap import (
    DRAWS,
    Interval,
    cluster_bootstrap,
    judge_noise,
    minimal_detectable_difference,
    ranks,
    sign_test,
)
from gshf_release.data.statistics import clustered_mean, mean


def bootstrap(values: Sequence[float], *, seed: int = 0, level: float = 0.95, draws: int = DRAWS) -> Interval:
    """The bootstrap of values that are a cluster each."""
    return cluster_bootstrap(values, list(range(len(values))), seed=seed, level=level, draws=draws)


def test_the_bootstrap_is_centred_on_the_mean() -> None:
    found = bootstrap([2, 1, 4, 1])
    assert found.value == 2
    assert 1 <= found.low < 2 < found.high <= 4


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=50).tolist()
    first, again, other = (bootstrap(values, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert bootstrap([1, 1, 1])[:3] == (1, 1, 1)


def test_the_bootstrap_of_many_nearly_normal_values_is_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(1, 2, 2000).tolist()
    found, plain = bootstrap(values), mean(values)
    assert plain.standard_error is not None
    assert found.low == pytest.approx(plain.value - 1.96 * plain.standard_error, abs=0.01)
    assert found.high == pytest.approx(plain.value + 1.96 * plain.standard_error, abs=0.01)


def test_bca_equals_an_independent_implementation() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(4).exponential(size=40)
    found = bootstrap(values.tolist(), draws=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(0)).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_unequal_lengths_and_single_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values but 1 cluster names"):
        cluster_bootstrap([1, 2], ["a"], seed=0)
    with pytest.raises(ValueError, match="at least two"):
        cluster_bootstrap([1, 2], ["a", "a"], seed=0)


def test_the_cluster_bootstrap_keeps_turns_together() -> None:
    # Two turns that always agree carry the information of one: the interval is that of the 40 questions, not of 80 turns.
    questions = np.random.default_rng(5).normal(size=40)
    doubled, names = np.repeat(questions, 2), np.repeat(np.arange(40), 2)
    together = cluster_bootstrap(doubled.tolist(), names.tolist(), seed=0)
    alone = cluster_bootstrap(questions.tolist(), list(range(40)), seed=0)
    assert together == pytest.approx(alone)


def test_the_cluster_bootstrap_pools_clusters_of_unequal_size() -> None:
    assert cluster_bootstrap([9, 3, 6], [81, 82, 82], seed=0).value == pytest.approx(6)  # 18 / 3, not (9 + 4.5) / 2


@pytest.mark.parametrize("kind", ["skewed shares", "clusters"])
def test_ninety_percent_intervals_cover_about_ninety_percent(kind: str) -> None:
    generator, runs, size, hits = np.random.default_rng(6), 400, 100, 0
    for run in range(runs):
        if kind == "clusters":
            values = np.repeat(generator.normal(0, 1, size), 2) + generator.normal(0, 0.5, 2 * size)
            found = cluster_bootstrap(values, np.repeat(np.arange(size), 2).tolist(), seed=run, level=0.9, draws=600)
            truth = 0.0
        else:
            values, truth = generator.beta(0.2, 1.8, size), 0.1
            found = bootstrap(values.tolist(), seed=run, level=0.9, draws=600)
        hits += found.low <= truth <= found.high
    error = math.sqrt(0.9 * 0.1 / runs)
    assert abs(hits / runs - 0.9) < 3 * error, f"coverage {hits / runs:.3f} ± {error:.3f}"


def test_sign_test_by_hand() -> None:
    # 5 wins, 1 loss: 2 (1 + 6) / 64.
    assert sign_test([1, 2, 0.5, 3, 1, -2, 0]) == (5, 1, 1, pytest.approx(14 / 64))


def test_sign_test_without_a_decision_finds_nothing() -> None:
    assert sign_test([0, 0]) == (0, 0, 2, 1.0)
    assert sign_test([1, -1]).p == 1.0


def test_sign_test_of_many_pairs_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = [1.0] * 460 + [-1.0] * 345
    assert sign_test(differences).p == pytest.approx(stats.binomtest(460, 805).pvalue, rel=1e-9)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=60))
def test_sign_test_is_symmetric(differences: list[float]) -> None:
    found, turned = sign_test(differences), sign_test([-value for value in differences])
    assert found.p == turned.p
    assert 0 < found.p <= 1


def test_judge_noise_by_hand() -> None:
    # Within: (0.5² + 0.5² + 0 + 0) / 2 = 1/4. Means 1.5 and 4: variance 25/8, squared error 25/16. Noise 1/4 * (1/2 + 1/2) / 4.
    found = judge_noise({"a": [1, 2], "b": [4, 4]})
    assert found is not None
    assert found.within_variance == pytest.approx(0.25)
    assert found.standard_error == pytest.approx(1.25)
    assert found.share == pytest.approx((1 / 16) / (25 / 16))
    assert found.without_noise == pytest.approx(math.sqrt(24 / 16))
    assert (found.items, found.judgments) == (2, 4)


def test_a_judge_that_repeats_itself_has_no_noise() -> None:
    found = judge_noise({"a": [1, 1, 1], "b": [3, 3], "c": [5]})
    assert found is not None
    assert (found.within_variance, found.share) == (0, 0)


def test_judge_noise_needs_repeats() -> None:
    assert judge_noise({"a": [1], "b": [2]}) is None
    assert judge_noise({"a": [1, 2]}) is None


def test_judge_noise_recovers_what_was_put_in() -> None:
    generator = np.random.default_rng(7)
    items = generator.normal(0, 2, 2000)
    repeats = {str(k): (value + generator.normal(0, 1, 3)).tolist() for k, value in enumerate(items)}
    found = judge_noise(repeats)
    assert found is not None
    assert found.within_variance == pytest.approx(1, rel=0.1)
    assert found.share == pytest.approx((1 / 3) / (4 + 1 / 3), rel=0.15)


def test_minimal_detectable_difference_by_hand() -> None:
    assert minimal_detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-6)


def test_the_minimal_detectable_difference_is_found_with_its_power() -> None:
    draws = np.random.default_rng(8).normal(minimal_detectable_difference(1.0), 1, 20_000)
    assert (np.abs(draws) > 1.959964).mean() == pytest.approx(0.8, abs=0.01)


def test_equal_values_share_their_rank() -> None:
    assert ranks([10, 30, 20, 30]) == [1, 3.5, 2, 3.5]


def test_one_value_a_cluster_has_the_standard_error_of_the_sandwich() -> None:
    values = np.random.default_rng(9).normal(size=300)
    names = [str(k) for k in range(300)]
    found, plain = cluster_bootstrap(values.tolist(), names, seed=0), clustered_mean(values.tolist(), names)
    assert plain.standard_error is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * plain.standard_error, rel=0.05)
