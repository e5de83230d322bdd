"""Responses without a reward because a text was too long: what is chosen among the others, and what is counted."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from gshf_release.data.records import TOO_LONG, Message, Sample
from gshf_release.preference import pairs, winners
from gshf_release.preference.ranking import Drops, candidates, drawn, drop_cells
from gshf_release.recipe import Pairs
from gshf_release.rewards import Duel
from gshf_release.rewards.ensemble import EnsembleReward, score_readable
from gshf_release.rewards.pairwise import readable_rivals, round_robin
from tests.preference.test_pairs import response

RULES = Pairs()


def dropped(index: int) -> Sample:
    return Sample("p", index, "T=1", 1.0, [1, 5, 6], [], "", TOO_LONG, "f" * 64)


def chosen(rewards: dict[int, float], count: int = 4) -> pairs.Choice:
    samples = [response(index) for index in range(count)]
    entry = drawn(samples, candidates(samples, rewards, RULES))
    return pairs.choose_pair(entry.found, RULES, 1, random.Random(0), entry.unread)


def test_the_pair_is_chosen_among_the_responses_that_the_scorer_could_read() -> None:
    pair = chosen({0: 1.0, 2: 3.0, 3: 2.0}).pair
    assert pair is not None
    assert (pair.chosen_index, pair.rejected_index) == (2, 0)


@pytest.mark.parametrize("rewards", [{}, {1: 1.0}])
def test_where_fewer_than_two_are_left_the_reason_is_their_length(rewards: dict[int, float]) -> None:
    assert chosen(rewards).reason == "response too long to score"


def test_a_prompt_too_long_for_the_policy_has_its_own_reason() -> None:
    samples = [dropped(0), dropped(1)]
    entry = drawn(samples, candidates(samples, {}, RULES))
    assert pairs.choose_pair(entry.found, RULES, 1, random.Random(0), entry.unread).reason == "prompt too long"
    assert winners.choose_winner(entry.found, RULES, 1, entry.unread) == "prompt too long"


def test_too_few_samples_stay_too_few() -> None:
    assert chosen({0: 1.0}, count=1).reason == "too few responses"


def test_prompts_and_responses_are_counted_apart() -> None:
    """Two of four responses unread and a pair all the same; and a prompt of two that was dropped."""
    half, whole = [response(index) for index in range(4)], [dropped(0), dropped(1)]
    entries = [drawn(half, candidates(half, {0: 1.0, 1: 0.0}, RULES)), drawn(whole, [])]
    drops = Drops(pairs.REASONS)
    for entry, reason in zip(entries, [None, "prompt too long"], strict=True):
        drops.add(entry, reason)
    document = drops.document()
    assert document["prompts"] == 2
    assert document["responses"] == {"prompt too long": 2, "response too long to score": 2}
    shown = {cell.metric: (cell.value, cell.n) for cell in drop_cells(document, table="training", row="iteration-1")}
    assert shown == {
        "dropped: prompt too long": (1, 2),
        "responses without a reward: prompt too long": (2, None),
        "responses without a reward: response too long to score": (2, None),
    }


class Reader:
    """Scores the length of an answer, of at most `limit` characters."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def reads(self, conversation: Sequence[Message]) -> bool:
        return len(conversation[-1]["content"]) <= self.limit

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        assert all(map(self.reads, conversations))
        return np.asarray([len(conversation[-1]["content"]) for conversation in conversations], dtype=np.float32)


def test_an_ensemble_reads_what_every_member_reads() -> None:
    conversations = [[Message(role="assistant", content="x" * length)] for length in (3, 8, 20)]
    found = score_readable(EnsembleReward([lambda: Reader(10), lambda: Reader(5)]), conversations)
    assert found.read is not None
    assert found.read.tolist() == [True, False, False]
    assert found.rewards[0] == 3


class Judge:
    """Prefers the longer of two responses, of at most `limit` characters together."""

    limit = 10

    def reads(self, duel: Duel) -> bool:
        return len(duel.a) + len(duel.b) <= self.limit

    def prefer(self, prompt: Sequence[Message], a: str, b: str) -> float:
        return float(len(a) > len(b))

    def prefer_all(self, duels: Sequence[Duel]) -> npt.NDArray[np.float32]:
        assert all(map(self.reads, duels))
        return np.asarray([self.prefer(*duel) for duel in duels], dtype=np.float32)


def test_a_tournament_is_complete_among_the_responses_that_can_be_compared() -> None:
    """2 + 9 characters are too many, 2 + 4 and 4 + 5 are not: the longest leaves, the others meet each other."""
    responses = {("p", index): "x" * length for index, length in enumerate((2, 9, 4, 5))}
    kept = readable_rivals(Judge(), {"p": []}, responses)
    assert sorted(kept) == [("p", 0), ("p", 2), ("p", 3)]
    assert round_robin(Judge(), {"p": []}, kept) == {("p", 0): 0.0, ("p", 2): 0.5, ("p", 3): 1.0}
