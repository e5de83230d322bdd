"""A scorer standing in for a judge: the higher score wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from gshf_release.data.records import Message
from gshf_release.evaluation.annotators import STAND_IN, Comparison, ScorerAnnotator, preference


class Lengths:
    """A reward model that likes long last turns."""

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        return np.array([len(conversation[-1]["content"]) for conversation in conversations], dtype=np.float32)


@pytest.mark.parametrize(("a", "b", "expected"), [(2.0, 1.0, 1.0), (1.0, 2.0, 0.0), (1.5, 1.5, 0.5)])
def test_the_higher_score_wins_and_equal_scores_tie(a: float, b: float, expected: float) -> None:
    assert preference(a, b) == Comparison(expected, a, b)


def test_a_scorer_compares_two_answers_to_a_prompt() -> None:
    prompt = [Message(role="user", content="why?")]
    assert ScorerAnnotator(Lengths()).compare(prompt, "because", "no") == Comparison(1.0, 7.0, 2.0)
    assert ScorerAnnotator(Lengths()).compare(prompt, "no", "because") == Comparison(0.0, 2.0, 7.0)


def test_a_stand_in_says_so() -> None:
    assert "stand-in" in STAND_IN
