"""Held-out accuracy, length-matched accuracy and calibration against hand calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import PreferenceScore
from gshf_release.data.results import find
from gshf_release.rewards.quality import calibration, cells, hits, length_matched


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_a_tie_counts_one_half() -> None:
    assert hits([1.5, -0.5, 0.0]) == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(("one", "other", "matched"), [(9, 10, True), (10, 9, True), (89, 100, False), (0, 0, True)])
def test_length_matched_is_within_ten_percent(one: int, other: int, matched: bool) -> None:
    assert length_matched(one, other) is matched


def test_calibration_by_hand() -> None:
    # Ten bins of width 0.05. Two preferences at 0.62, one right: bin (0.60, 0.65], |1/2 - 0.62| = 0.12.
    # Two at 0.97, both right: bin (0.95, 1], |1 - 0.97| = 0.03. ECE = 2/4 * 0.12 + 2/4 * 0.03 = 0.075.
    margins = [logit(0.62), -logit(0.62), logit(0.97), logit(0.97)]
    found = calibration(margins, ["a", "b", "c", "d"])
    assert found.error.value == pytest.approx(0.075)
    assert found.error.n == 4
    used = {round(entry.low, 2): entry for entry in found.bins if entry.n}
    assert set(used) == {0.6, 0.95}
    assert [round(entry.high, 2) for entry in used.values()] == [0.65, 1.0]
    assert used[0.6].confidence == pytest.approx(0.62)
    assert used[0.6].accuracy == 0.5
    assert used[0.6].standard_error == pytest.approx(0.5)  # residuals +-1/2: sqrt(2/1 * (1/4 + 1/4)) / 2
    assert used[0.95].accuracy == 1


def test_no_margin_is_in_the_first_bin_and_perfectly_calibrated() -> None:
    found = calibration([0.0, 0.0], ["a", "b"])
    assert found.error.value == 0
    assert found.bins[0].n == 2


def test_a_large_margin_is_in_the_last_bin() -> None:
    assert calibration([800.0, -800.0], ["a", "b"]).bins[-1].n == 2


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    draws = np.random.default_rng(0)
    margins = draws.normal(0, 1.5, 4000)
    right = draws.random(4000) < 1 / (1 + np.exp(-np.abs(margins)))
    signed = np.where(right, np.abs(margins), -np.abs(margins))
    prompts = [str(number) for number in range(4000)]
    honest, boastful = (calibration((scale * signed).tolist(), prompts).error for scale in (1, 5))
    assert honest.value < 0.03
    assert boastful.value > 0.15
    assert honest.standard_error is not None
    assert 0.002 < honest.standard_error < 0.02


def test_several_pairs_of_one_prompt_widen_the_standard_error() -> None:
    margins = [logit(0.7) if number % 3 else -logit(0.7) for number in range(60)]
    alone = calibration(margins, [str(number) for number in range(60)]).error
    together = calibration(margins, [str(number % 3) for number in range(60)]).error
    assert alone.standard_error is not None
    assert together.standard_error is not None
    assert together.standard_error > alone.standard_error


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_the_error_is_a_share_and_does_not_depend_on_order(margins: list[float]) -> None:
    names = [str(number) for number in range(len(margins))]
    found = calibration(margins, names)
    assert 0 <= found.error.value <= 1
    assert sum(entry.n for entry in found.bins) == len(margins)
    assert calibration(margins[::-1], names[::-1]).error.value == pytest.approx(found.error.value)


def test_cells_by_hand() -> None:
    rows = [
        PreferenceScore("a", 1.0, 0.0, 10, 5),  # right, longer
        PreferenceScore("b", 0.0, 1.0, 10, 10),  # wrong, equal length
        PreferenceScore("c", 2.0, 1.0, 19, 20),  # right, shorter, matched
        PreferenceScore("d", 0.5, 0.5, 5, 10),  # tied, shorter
    ]
    found = cells(rows, row="mine", artefact="held-out.parquet")
    accuracy = find(found, metric="held-out accuracy")
    assert accuracy is not None
    assert (accuracy.value, accuracy.n) == (62.5, 4)  # (1 + 0 + 1 + 1/2) / 4
    # residuals 3/8, -5/8, 3/8, -1/8: sqrt(4/3 * 44/64) / 4
    assert accuracy.standard_error == pytest.approx(100 * math.sqrt(4 / 3 * 44 / 64) / 4)
    matched = find(found, metric="accuracy on length-matched pairs")
    assert matched is not None
    assert (matched.value, matched.n) == (50, 2)
    longer = find(found, metric="length-only accuracy")
    assert longer is not None
    assert longer.value == 37.5  # (1 + 1/2 + 0 + 0) / 4
    assert find(found, metric="expected calibration error") is not None


def test_no_length_matched_pair_leaves_that_cell_out() -> None:
    found = cells([PreferenceScore("a", 1.0, 0.0, 10, 5)], row="mine", artefact="x")
    assert find(found, metric="accuracy on length-matched pairs") is None
    assert all(entry.standard_error is None for entry in found), "one prompt has no standard error"
