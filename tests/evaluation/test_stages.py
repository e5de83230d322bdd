"""The stand-in annotator's comparison of two scores."""

from __future__ import annotations

import pytest

from gshf_release.evaluation.stages import preference


@pytest.mark.parametrize(("score", "other", "expected"), [(2.0, 1.0, 1.0), (1.0, 2.0, 0.0), (1.5, 1.5, 0.5)])
def test_the_higher_score_wins_and_equal_scores_tie(score: float, other: float, expected: float) -> None:
    assert preference(score, other) == expected
