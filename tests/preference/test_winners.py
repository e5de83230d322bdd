"""RAFT's winners: the best response to each prompt, and every reason for having none."""

from __future__ import annotations

import math
from typing import Any

from gshf_release.data.records import Sample, Winner
from gshf_release.preference import winners
from gshf_release.preference.ranking import candidates
from gshf_release.recipe import Pairs
from tests.preference.test_pairs import response


def choose(samples: list[Sample], rewards: list[float], **rules: Any) -> Winner | str:
    chosen = Pairs.model_validate(rules)
    return winners.choose_winner(candidates(samples, dict(enumerate(rewards)), chosen), chosen, 3)


def test_the_best_response_wins() -> None:
    found = choose([response(0), response(1), response(2)], [0.25, 2.0, -1.0])
    assert found == Winner("p", 3, [1, 5, 6], [11, 2], "answer 1", 1, 2.0, "f" * 64)


def test_a_cut_response_is_no_winner_where_cut_ones_lose() -> None:
    cut = [response(0, reason="length"), response(1, reason="length")]
    assert choose(cut, [1.0, 0.0], cut="lose") == "cut"
    assert choose(cut, [1.0, 0.0], cut="drop") == "cut"
    kept = choose(cut, [1.0, 0.0], cut="keep")
    assert isinstance(kept, Winner)
    assert kept.sample_index == 0


def test_a_response_that_ended_wins_over_a_better_one_that_was_cut() -> None:
    found = choose([response(0, reason="length"), response(1)], [5.0, 1.0], cut="lose")
    assert isinstance(found, Winner)
    assert found.sample_index == 1


def test_one_response_is_enough_and_none_is_not() -> None:
    assert isinstance(choose([response(0)], [0.0]), Winner)
    assert choose([], []) == "too few responses"


def test_a_reward_that_is_no_number_drops_the_prompt() -> None:
    assert choose([response(0), response(1)], [math.nan, 1.0]) == "non-finite reward"


def test_a_winner_of_more_tokens_than_allowed_is_dropped() -> None:
    """Three tokens of the prompt and two of the response."""
    assert isinstance(choose([response(0)], [1.0], max_tokens=5), Winner)
    assert choose([response(0)], [1.0], max_tokens=4) == "too long"
