"""Paired comparisons of models on the same prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from gshf_release.errors import DataError
from gshf_release.evaluation.comparisons import (
    alpaca_eval_noise,
    alpaca_eval_wins,
    compare,
    mt_bench_means,
    mt_bench_noise,
    questions,
)
from gshf_release.evaluation.mt_bench.judgments import Judgment
from gshf_release.evaluation.mt_bench.scoring import ratings_of


@dataclass
class Row:
    instruction: str
    win: float | None


def rating(question: int, turn: int, score: float, repeat: int = 0) -> Judgment:
    return Judgment(question, "m", "j", "", turn, score, 0.0, repeat)


def test_the_difference_is_paired_and_counts_what_is_left_out() -> None:
    # Shared: a 1, b 1, c 4: mean 2, standard error 1.
    found = compare({"a": 11, "b": 21, "c": 34, "d": 0}, {"c": 30, "a": 10, "b": 20, "e": 5, "f": 5}, seed=0)
    assert found.difference == pytest.approx((2, 1, 3))
    assert (found.only_first, found.only_second) == (1, 2)
    assert found.sign_test == (3, 0, 0, 0.25)
    assert found.minimal_detectable == pytest.approx(2.8016, abs=1e-4)
    assert found.interval.low <= 2 <= found.interval.high


def test_a_question_of_two_turns_is_one_cluster() -> None:
    first = {(81, 1): 9.0, (81, 2): 9.0, (82, 1): 5.0, (82, 2): 5.0}
    second = dict.fromkeys(first, 6.0)
    found = compare(first, second, seed=0, clusters=questions(list(first)))
    # Differences 3, 3, -1, -1 around 1: residual sums 4 and -4; sqrt(2 * 32) / 4.
    assert found.difference == pytest.approx((1, 2, 4))
    assert found.sign_test[:3] == (1, 1, 0)


def test_models_without_a_common_prompt_are_refused() -> None:
    with pytest.raises(DataError, match="share 0 prompts"):
        compare({"a": 1.0}, {"b": 1.0}, seed=0)


def test_wins_leave_out_what_was_not_judged() -> None:
    assert alpaca_eval_wins([Row("a", 0.25), Row("b", None), Row("a", 0.75)]) == {"a": 50.0}


def test_scores_leave_out_what_could_not_be_read() -> None:
    judged = [rating(81, 1, 8), rating(81, 2, -1), rating(82, 1, 6, 0), rating(82, 1, 7, 1)]
    assert mt_bench_means(ratings_of(judged)) == {(81, 1): 8, (82, 1): 6.5}


def test_noise_comes_from_the_repeats() -> None:
    judged = [rating(81, 1, 1, 0), rating(81, 1, 2, 1), rating(82, 1, 4, 0), rating(82, 1, 4, 1)]
    found = mt_bench_noise(ratings_of(judged))
    assert found is not None
    assert found.within_variance == pytest.approx(0.25)
    assert found.share == pytest.approx(0.04)  # (1/16) / (25/16), see test_bootstrap
    assert mt_bench_noise(ratings_of([rating(81, 1, 1), rating(82, 1, 1)])) is None


def test_noise_of_win_rates_is_in_percent() -> None:
    found = alpaca_eval_noise([[Row("a", 0.0), Row("b", 1.0)], [Row("a", 0.5), Row("b", 1.0)]])
    assert found is not None
    assert math.sqrt(found.within_variance) == pytest.approx(25)  # a: 0 and 50 around 25, squares 1250 / 2 degrees
