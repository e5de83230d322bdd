"""Ways of choosing two of n: what each may return, and multi-step rejection sampling against its distribution."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Sample
from gshf_release.preference.pair_rules import CHOICES
from gshf_release.preference.ranking import Candidate, candidates
from gshf_release.recipe import Pairs


def found(*rewards: float, **rules: Any) -> list[Candidate]:
    """Return candidates with these rewards; response i is 10 * (i + 1) characters and i + 1 tokens long."""
    samples = [
        Sample("p", index, "T=1", 1.0, [1], list(range(3, 4 + index)), "x" * 10 * (index + 1), "stop", "f" * 64)
        for index in range(len(rewards))
    ]
    log_ratios = {index: float(index) for index in range(len(rewards))}
    return candidates(samples, dict(enumerate(rewards)), Pairs(**rules), log_ratios)


def rules(choice: str) -> Pairs:
    return Pairs.model_validate({"choice": choice, "etas": [4.0, 2.0, 1.0] if choice == "rejection-sampling" else []})


@pytest.mark.parametrize("choice", CHOICES)
@given(rewards=st.lists(st.floats(-3, 3), min_size=2, max_size=8), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_two_different_responses_the_better_first(choice: str, rewards: list[float], seed: int) -> None:
    two = CHOICES[choice](found(*rewards), rules(choice), random.Random(seed))
    if choice != "rejection-sampling":
        assert two is not None
    if two is not None:
        assert two.chosen.index != two.rejected.index or len(set(rewards)) == 1
        assert two.chosen.value >= two.rejected.value


def test_best_against_any_other() -> None:
    met = [CHOICES["best-vs-random"](found(0, 3, 1, 2), Pairs(), random.Random(seed)) for seed in range(60)]
    assert {two.chosen.index for two in met if two} == {1}
    assert {two.rejected.index for two in met if two} == {0, 2, 3}


def test_the_first_against_any_other() -> None:
    met = [CHOICES["first-vs-random"](found(2, 3, 1), Pairs(), random.Random(seed)) for seed in range(60)]
    assert {(two.chosen.index, two.rejected.index) for two in met if two} == {(1, 0), (0, 2)}


def test_rejection_sampling_draws_from_the_gibbs_distribution() -> None:
    """Of proposals with the rewards 0, 1, 2 in equal shares, one is accepted with a probability that goes like exp(r / eta).

    With 300 responses per prompt, the share of accepted pairs of each kind follows; the first of a pair is a plain draw.
    """
    rewards = [0.0, 1.0, 2.0] * 100
    counts = {0.0: 0, 1.0: 0, 2.0: 0}
    for seed in range(400):
        two = CHOICES["rejection-sampling"](found(*rewards), rules("rejection-sampling"), random.Random(seed))
        if two is not None:
            counts[two.chosen.reward] += 1
            counts[two.rejected.reward] += 1
    total = sum(counts.values())
    weights = {reward: math.exp(reward) for reward in counts}  # the last eta is 1
    for reward, count in counts.items():
        expected = weights[reward] / sum(weights.values())
        deviation = math.sqrt(expected * (1 - expected) / total)
        assert abs(count / total - expected) < 4 * deviation, reward


def test_where_fewer_than_two_are_accepted_there_is_no_pair() -> None:
    assert CHOICES["rejection-sampling"](found(0.0, 1000.0), rules("rejection-sampling"), random.Random(0)) is None


def test_two_accepted_responses_are_a_pair() -> None:
    """Equal rewards are accepted with the probability 1 at every step."""
    two = CHOICES["rejection-sampling"](found(1.0, 1.0), rules("rejection-sampling"), random.Random(0))
    assert two is not None
    assert {two.chosen.index, two.rejected.index} == {0, 1}


@pytest.mark.parametrize(("unit", "best"), [("characters", 0), ("tokens", 2)])
def test_a_length_penalty_counts_in_its_unit(unit: str, best: int) -> None:
    """Rewards 0, 1, 2 at 10, 20, 30 characters and 1, 2, 3 tokens: at 0.2 a unit, only characters outweigh them."""
    two = CHOICES["best-vs-worst"](found(0, 1, 2, length_penalty=0.2, length_unit=unit), Pairs(), random.Random(0))
    assert two is not None
    assert two.chosen.index == best


def test_leaving_the_base_is_charged_per_nat() -> None:
    values = [entry.value for entry in found(1, 1, 1, kl_weight=0.5)]
    assert values == [1.0, 0.5, 0.0]


def test_the_pair_keeps_the_reward_as_scored() -> None:
    assert [entry.reward for entry in found(1, 2, length_penalty=0.1)] == [1, 2]
