"""The win rate against values computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.win_rate import win_rate
from tests.evaluation.alpaca_eval.rows import annotation


def test_wins_losses_draws_and_missing_judgments_by_hand() -> None:
    found = win_rate([annotation(value) for value in (2.0, 1.8, 1.5, 1.0, None)])
    assert found.win_rate == pytest.approx(100 * (1 + 0.8 + 0.5 + 0) / 4, abs=1e-12)
    deviations = sum((value - 0.575) ** 2 for value in (1, 0.8, 0.5, 0))
    assert found.standard_error == pytest.approx(100 * math.sqrt(deviations / 3 / 4), abs=1e-12)
    assert (found.n_total, found.n_wins, found.n_wins_base, found.n_draws, found.n_null) == (4, 2, 1, 1, 1)
    assert found.discrete_win_rate == 62.5


def test_one_judgment_has_no_standard_error() -> None:
    assert win_rate([annotation(1.25)]).standard_error is None


def test_no_judgment_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="None of 1 rows has a preference"):
        win_rate([annotation(None)])


@given(st.lists(st.floats(1, 2), min_size=2, max_size=30))
def test_the_rate_of_swapped_answers_is_the_complement(preferences: list[float]) -> None:
    one = win_rate([annotation(value) for value in preferences])
    other = win_rate([annotation(3 - value) for value in preferences])
    assert one.win_rate + other.win_rate == pytest.approx(100)
    assert one.standard_error == pytest.approx(other.standard_error)
    assert 0 <= one.win_rate <= 100
