"""Annotators compare two answers to a prompt. An LLM judge is one; a scorer standing in for one is another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gshf_release.data.records import Message
from gshf_release.rewards import RewardModel

STAND_IN = "stand-in (second scorer)"


class Comparison(NamedTuple):
    """A preference for `a` (1), for `b` (0) or for neither (0.5), with the scores behind it."""

    preference: float
    score_a: float
    score_b: float


class Annotator(Protocol):
    """Compares answers; a new annotator is one file."""

    def compare(self, prompt: Sequence[Message], a: str, b: str) -> Comparison:
        """Return which of two answers to `prompt` is better."""
        ...


@dataclass(frozen=True, slots=True)
class ScorerAnnotator:
    """A reward model standing in for a judge: the higher score wins. Always labelled as a stand-in."""

    scorer: RewardModel

    def compare(self, prompt: Sequence[Message], a: str, b: str) -> Comparison:
        """Return the comparison of the two scores."""
        answers = [[*prompt, Message(role="assistant", content=text)] for text in (a, b)]
        first, second = (float(value) for value in self.scorer.score(answers))
        return preference(first, second)


def preference(score_a: float, score_b: float) -> Comparison:
    """Return the comparison that two scores imply; equal scores tie."""
    value = 0.5 if score_a == score_b else float(score_a > score_b)
    return Comparison(value, score_a, score_b)
