"""Reward models behind one protocol: conversations in, one number each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gshf_release.records import Message


class RewardModel(Protocol):
    """Scores whole conversations; a higher number is a better last turn."""

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the rewards, float32 (n,), in the order given."""
        ...
