"""Preferences on another scale than AlpacaEval's are told from its own, draws of old files included."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gshf_release.data.preference_scale import other_scale


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 1.5, None, math.nan],
        [1, 2, 0],  # 0 is a draw, as old versions of AlpacaEval wrote it
        [0, 1.0000001],
        [1.02, 1.5, 1.98],
        [1, 1, 1],  # the baseline wins all: unlikely, but said elsewhere
        [1.5, 0],
        [None],
        [],
    ],
)
def test_the_scale_of_alpaca_eval_is_known(values: list[Any]) -> None:
    assert other_scale(values) == ""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0, 1, 1, None], "0 and 1"),
        ([0.0, 1.0], "0 and 1"),
        ([0, 0], "0 alone"),
        ([1, -1, 0], "from -1 to 1"),
        ([0, 0.5, 1], "from 0 to 1"),
        ([0.25, 0.75], "from 0.25 to 0.75"),
        ([100, 37.5, 0], "from 0 to 100"),
        ([True, False], "true and false"),
        (["model", "baseline"], "texts, such as 'model'"),
        ([10**400, 0], "from 0 to more than a million times a million"),
    ],
)
def test_another_scale_is_named(values: list[Any], told: str) -> None:
    assert other_scale(values) == told
