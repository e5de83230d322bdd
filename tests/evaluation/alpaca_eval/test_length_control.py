"""The length-controlled fit: its parts by hand, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest

from gshf_release.evaluation.alpaca_eval.data import GamedBaselines
from gshf_release.evaluation.alpaca_eval.length_control import (
    STRENGTHS,
    cross_validated,
    intercept_error,
    minimal_problem,
    published_problem,
    solve,
    standardised_difference,
)


def test_lengths_are_differences_in_standard_deviations() -> None:
    found = standardised_difference(["aaaa", "aa"], ["b", "bbb"])
    assert found == pytest.approx(np.array([3, -1]) / np.sqrt(8))  # sd(ddof=1) of 3 and -1 is sqrt(8)


@pytest.mark.parametrize("texts", [(["aa", "a"], ["bbb", "bb"]), (["a"], ["bbb"])])
def test_lengths_that_never_differ_otherwise_are_no_effect(texts: tuple[list[str], list[str]]) -> None:
    assert not standardised_difference(*texts).any()


def test_the_published_features_and_weights_by_hand() -> None:
    gamed = GamedBaselines(np.array([0.3]), np.array([2.0]), np.array([0.7]))
    found = published_problem(np.array([0.9, np.nan]), np.array([1.0, -1.0]), np.array([0.1, 0.2]), gamed)
    assert found.features == pytest.approx(np.array([[np.tanh(2), 0.7, 0], [np.tanh(1), 0.1, 1]]))
    assert found.target == pytest.approx(np.array([0.3, 0.9]))
    assert found.weight == pytest.approx(np.array([0.1, 1.0]))
    assert found.wanted == pytest.approx(np.array([[0, 0.1, 1], [0, 0.2, 1]]))  # a row without a judgment is predicted


def test_the_strengths_are_ten_from_a_ten_thousandth_to_ten_thousand() -> None:
    assert len(STRENGTHS) == 10
    assert STRENGTHS[0] == pytest.approx(1e-4)
    assert STRENGTHS[5] == pytest.approx(2.782559402207126)
    assert STRENGTHS[9] == pytest.approx(1e4)


def test_without_a_length_effect_the_win_rate_is_the_mean() -> None:
    wins = np.tile([1.0, 1.0, 1.0, 0.0], 50)
    found = solve(minimal_problem(wins, np.zeros(200)))
    assert found.low <= found.win_rate <= found.high
    assert found.win_rate == pytest.approx(75, abs=0.5)
    assert intercept_error(minimal_problem(wins, np.zeros(200)), found.coefficients) == pytest.approx(
        100 * np.sqrt(0.75 * 0.25 / 200), rel=0.02
    )


def test_an_advantage_that_is_length_alone_is_removed() -> None:
    draw = np.random.default_rng(0)
    difference = draw.normal(-1.0, 1.0, 400)  # the model's answers are longer
    wins = 1 / (1 + np.exp(2.0 * np.tanh(difference)))
    found = solve(minimal_problem(wins, difference))
    assert wins.mean() > 0.7
    assert found.win_rate == pytest.approx(50, abs=1)


def test_the_chosen_strength_has_the_least_loss_out_of_fold() -> None:
    draw = np.random.default_rng(0)
    problem = minimal_problem(draw.uniform(size=100), draw.normal(size=100))
    losses = cross_validated(problem)
    assert solve(problem).regularisation == STRENGTHS[int(losses.argmin())]


def test_fewer_judgments_than_folds_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="needs at least 5 judgments, there are 4"):
        solve(minimal_problem(np.ones(4), np.zeros(4)))


def test_a_model_that_always_wins_can_be_fitted() -> None:
    found = solve(minimal_problem(np.ones(20), np.linspace(-1, 1, 20)))
    assert found.win_rate > 99


@pytest.mark.parametrize("wins", [0.0, 1.0])
def test_a_model_that_always_wins_or_loses_is_fitted_without_a_complaint(
    wins: float, capfd: pytest.CaptureFixture[str]
) -> None:
    difference = np.linspace(-1, 1, 20)
    found = solve(minimal_problem(np.full(20, wins), difference))
    assert found.win_rate == pytest.approx(100 * wins, abs=0.1)
    assert capfd.readouterr() == ("", "")


def test_losses_and_wins_are_mirror_images() -> None:
    difference = np.linspace(-1, 1, 20)
    rare = np.zeros(20)
    rare[3] = 1.0  # the fold that holds it leaves losses alone to the others
    won, lost = (solve(minimal_problem(wins, sign * difference)) for wins, sign in ((rare, 1), (1 - rare, -1)))
    assert won.win_rate == pytest.approx(100 - lost.win_rate, abs=0.01)
