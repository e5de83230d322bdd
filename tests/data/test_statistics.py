"""Standard errors against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gshf_release.data.statistics import (
    Estimate,
    clustered_mean,
    mean,
    mean_at_zero,
    paired_difference,
    pearson,
    win_rate,
)


def test_mean_of_four_values() -> None:
    # Deviations -1.5, -0.5, 0.5, 1.5; squares sum to 5; variance 5/3; standard error sqrt(5/3/4).
    assert mean([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 12), 4))


def test_one_value_has_no_standard_error() -> None:
    assert mean([3.5]) == Estimate(3.5, None, 1)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_paired_difference_uses_the_pairing() -> None:
    # Differences 1, 1, 4: mean 2, squares 1 + 1 + 4 = 6, variance 3, standard error 1.
    assert paired_difference([11, 21, 34], [10, 20, 30]) == pytest.approx((2, 1, 3))


def test_paired_difference_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        paired_difference([1, 2], [1])


def test_win_rate_counts_a_tie_as_half() -> None:
    # Mean 0.625; deviations .375, .375, -.625, -.125; squares sum to .6875; standard error sqrt(.6875 / 3 / 4).
    assert win_rate([1, 1, 0, 0.5]) == pytest.approx((62.5, 100 * math.sqrt(0.6875 / 12), 4))


def test_win_rate_of_one_comparison_has_no_standard_error() -> None:
    assert win_rate([1]) == Estimate(100.0, None, 1)


def test_clustered_mean_of_clusters_of_one_is_the_plain_mean_but_for_ddof() -> None:
    values = [1.0, 2.0, 4.0]
    found = clustered_mean(values, ["a", "b", "c"])
    assert found.value == pytest.approx(mean(values).value)
    assert found.standard_error == pytest.approx(mean(values).standard_error)


def test_clustered_mean_by_hand() -> None:
    found = clustered_mean([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])  # residual sums 1 and -1; G/(G-1) = 2
    assert found == Estimate(0.5, pytest.approx((2 * 2) ** 0.5 / 4), 4)


def test_one_cluster_has_no_standard_error() -> None:
    assert clustered_mean([1.0, 0.0], ["a", "a"]).standard_error is None


def test_pearson_by_hand() -> None:
    # Deviations -1, 0, 1 and -1, 1, 0: product 1, squares 2 and 2.
    assert pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert pearson([1, 2, 3], [9, 6, 3]) == pytest.approx(-1)


def test_a_side_that_does_not_vary_has_no_correlation() -> None:
    assert pearson([1, 1, 1], [1, 2, 3]) is None
    assert pearson([1], [2]) is None


def test_pearson_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        pearson([1, 2], [1])


def test_mean_at_zero_is_the_intercept_with_its_error() -> None:
    # x 1, 2, 3 and y 2, 3, 5: slope 3/2, intercept 1/3; residuals 1/6, -1/3, 1/6, squares sum to 1/6, variance 1/6;
    # standard error sqrt(1/6 * (1/3 + 4/2)).
    assert mean_at_zero([2, 3, 5], [1, 2, 3]) == pytest.approx((1 / 3, math.sqrt(7 / 18), 3))


def test_mean_at_zero_equals_the_matrix_form() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(2, 1, 40), draw.normal(1, 3, 40)
    design = np.column_stack([np.ones(40), x])
    coefficients, (squares,), *_ = np.linalg.lstsq(design, y)
    covariance = squares / 38 * np.linalg.inv(design.T @ design)
    expected = (coefficients[0], math.sqrt(covariance[0, 0]), 40)
    assert mean_at_zero(y.tolist(), x.tolist()) == pytest.approx(expected)


def test_mean_at_zero_of_a_zero_covariate_is_the_mean() -> None:
    assert mean_at_zero([1, 2, 3, 4], [0, 0, 0, 0]) == mean([1, 2, 3, 4])


def test_mean_at_zero_needs_a_covariate_that_varies() -> None:
    assert mean_at_zero([1, 2, 3], [4, 4, 4]) is None
    assert mean_at_zero([1, 2], [1, 2]) is None
    with pytest.raises(ValueError, match="2 and 1"):
        mean_at_zero([1, 2], [1])
