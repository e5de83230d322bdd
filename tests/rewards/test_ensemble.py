"""An ensemble scores by its members' mean and says how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.rewards import Inference
from gshf_release.rewards.ensemble import EnsembleReward, Scores, score_all
from gshf_release.rewards.models import open_named, scoring
from gshf_release.rewards.sequence_classification import SequenceClassificationReward

CONVERSATIONS = [[Message(role="user", content="why"), Message(role="assistant", content=text)] for text in "ab"]


class Fixed:
    def __init__(self, *values: float) -> None:
        self.values = values

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        return np.asarray(self.values, dtype=np.float32)


def test_mean_and_deviation_by_hand() -> None:
    members = [Fixed(1, 5), Fixed(2, 5), Fixed(6, 5)]
    found = EnsembleReward([lambda one=one: one for one in members]).score_with_deviation(CONVERSATIONS)
    # (1 + 2 + 6) / 3 = 3; deviations -2, -1, 3: sqrt((4 + 1 + 9) / 2) = sqrt(7)
    assert found.rewards == pytest.approx([3, 5])
    assert found.deviations == pytest.approx([7**0.5, 0])


def test_one_member_is_in_memory_at_a_time() -> None:
    events: list[str] = []

    class Watched(Fixed):
        def __init__(self, name: str) -> None:
            super().__init__(0, 0)
            self.name = name
            events.append(f"open {name}")

        def __del__(self) -> None:
            events.append(f"close {self.name}")

    EnsembleReward([lambda: Watched("first"), lambda: Watched("second")]).score(CONVERSATIONS)
    assert events == ["open first", "close first", "open second", "close second"]


def test_one_model_has_no_deviation() -> None:
    assert score_all(Fixed(1, 2), CONVERSATIONS).deviations is None


def test_several_names_are_an_ensemble(tiny_folder: Path) -> None:
    names = [str(tiny_folder / name) for name in ("reward", "second-scorer")]
    single = [SequenceClassificationReward.open(Path(name), Inference()).score(CONVERSATIONS) for name in names]
    found = score_all(scoring(open_named(names, "sequence-classification", Inference())), CONVERSATIONS)
    assert isinstance(found, Scores)
    assert found.rewards == pytest.approx((single[0] + single[1]) / 2, abs=1e-6)
    assert found.deviations == pytest.approx(abs(single[0] - single[1]) / 2**0.5, abs=1e-6)


def test_pairwise_models_are_no_ensemble(tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match="Pairwise models give no scores"):
        open_named([str(tiny_folder / "tiny")] * 2, "pairwise", Inference())


def test_a_pairwise_model_scores_no_single_answer(tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match="has no score for one alone"):
        scoring(open_named([str(tiny_folder / "tiny")], "pairwise", Inference()))


def test_an_ensemble_has_two_members() -> None:
    with pytest.raises(ValueError, match="two members at least"):
        EnsembleReward([lambda: Fixed(0)])
