"""Reward models behind one protocol: conversations in, one number each out. Pairwise models behind another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Message
from gshf_release.models.chat_template import Today
from gshf_release.models.checkpoints import Precision, device_of, inference_precision
from gshf_release.recipe.profile import Profile


class RewardModel(Protocol):
    """Scores whole conversations; a higher number is a better last turn."""

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the rewards, float32 (n,), in the order given."""
        ...


class Duel(NamedTuple):
    """Two responses to one prompt."""

    prompt: Sequence[Message]
    a: str
    b: str


@runtime_checkable
class PairwiseModel(Protocol):
    """Compares two responses to one prompt; it gives no score to one alone."""

    def prefer_all(self, duels: Sequence[Duel]) -> npt.NDArray[np.float32]:
        """Return the probability that `a` is better in each duel, float32 (n,), in the order given; of (b, a) one minus it."""
        ...


@dataclass(frozen=True, slots=True)
class Inference:
    """Says how a scorer is computed; but for the date, none of it changes a score beyond rounding."""

    precision: Precision = "fp32"
    device: str = "cpu"
    batch: int = 8
    """Sequences in one forward pass."""
    workers: int = 1
    """Batches computed side by side."""
    today: Today | None = None
    """The date that a model's chat template is told, if it asks; None is the day on which the model is opened."""

    @classmethod
    def of(cls, profile: Profile, today: Today | None = None) -> Self:
        """Return what a profile asks for, on the date of a run."""
        device = device_of(profile.device)
        precision = inference_precision(profile.inference_precision, device)
        return cls(precision, device, profile.scoring_batch, profile.concurrent_batches, today)
