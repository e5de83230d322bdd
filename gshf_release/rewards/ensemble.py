"""Several reward models as one: their mean, and how far they disagree.

The disagreement is what uncertainty-aware variants subtract or add (a heuristic for deep networks, arXiv 2312.11456 as
summarised). Scores are averaged as they are: members should be on one scale, for example trained alike with other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Message
from gshf_release.rewards import RewardModel

Opener = Callable[[], RewardModel]
Scoring = Callable[[RewardModel, Sequence[Sequence[Message]]], "Scores"]


class Scores(NamedTuple):
    """Rewards, and the members' standard deviation if there are members; both float32 (n,)."""

    rewards: npt.NDArray[np.float32]
    deviations: npt.NDArray[np.float32] | None = None
    read: npt.NDArray[np.bool_] | None = None
    """Which conversations are short enough, if that was asked; the others' rewards are NaN."""


class EnsembleReward:
    """Opens one member after the other, so that one is in memory at a time."""

    def __init__(self, members: Sequence[Opener]) -> None:
        if len(members) < 2:
            raise ValueError(f"an ensemble has two members at least, not {len(members)}")
        self.members = members
        self.folded = 0

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the mean of the members' scores, float32 (n,)."""
        return self.score_with_deviation(conversations).rewards

    def score_with_deviation(self, conversations: Sequence[Sequence[Message]]) -> Scores:
        """Return the mean and the standard deviation (ddof 1) over the members."""
        return self._over_members(conversations, score_all)

    def score_readable(self, conversations: Sequence[Sequence[Message]]) -> Scores:
        """Return the same for the conversations that every member can read."""
        return self._over_members(conversations, score_readable)

    def _over_members(self, conversations: Sequence[Sequence[Message]], score: Scoring) -> Scores:
        table = np.zeros((len(self.members), len(conversations)), dtype=np.float64)
        read = np.ones(len(conversations), dtype=np.bool_)
        folded = 0
        for row, opener in enumerate(self.members):
            member = opener()
            found = score(member, conversations)
            table[row] = found.rewards
            read &= True if found.read is None else found.read
            folded = max(folded, getattr(member, "folded", 0))
            del member
        self.folded += folded
        return Scores(table.mean(axis=0).astype(np.float32), table.std(axis=0, ddof=1).astype(np.float32), read)


def score_all(model: RewardModel, conversations: Sequence[Sequence[Message]]) -> Scores:
    """Return any model's scores, with the deviation where it is an ensemble."""
    if isinstance(model, EnsembleReward):
        return model.score_with_deviation(conversations)
    return Scores(model.score(conversations))


def score_readable(model: RewardModel, conversations: Sequence[Sequence[Message]]) -> Scores:
    """Return the scores of the conversations that a model can read, and which they are; a longer one has NaN."""
    if isinstance(model, EnsembleReward):
        return model.score_readable(conversations)
    reads = getattr(model, "reads", None)
    read = np.asarray([reads is None or reads(conversation) for conversation in conversations], dtype=np.bool_)
    rewards = np.full(len(conversations), np.nan, dtype=np.float32)
    rewards[read] = model.score([conversations[place] for place in np.flatnonzero(read).tolist()])
    return Scores(rewards, None, read)
