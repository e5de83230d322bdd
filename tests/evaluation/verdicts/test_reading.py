"""Why a reply holds no verdict, and what makes one doubt those that do."""

from __future__ import annotations

import pytest

from gshf_release.evaluation.verdicts import reading
from gshf_release.evaluation.verdicts.thinking import set_aside


@pytest.mark.parametrize(
    ("text", "reasoning", "finish_reason", "expected"),
    [
        ("The answer is good because", "", "length", reading.CUT_BEFORE),
        ("The answer is good because", "", "MAX_TOKENS", reading.CUT_BEFORE),
        ("", "I give [[8]]", "length", reading.CUT_THINKING),
        ("<think>I give [[8]]", "", "length", reading.CUT_THINKING),
        ("", "", "length", reading.CUT_BEFORE),
        ("", "", "content_filter", reading.FILTERED_BEFORE),
        ("", "I give [[8]]", "stop", reading.ONLY_THINKING),
        ("", "", "stop", reading.EMPTY),
        ("I cannot rate it.", "", "stop", "nothing"),
    ],
)
def test_why_there_is_no_verdict(text: str, reasoning: str, finish_reason: str, expected: str) -> None:
    assert reading_of(text, reasoning, finish_reason) == expected


def reading_of(text: str, thinking: str, finish_reason: str) -> str:
    return reading.without_verdict(set_aside(text), thinking, finish_reason, "nothing")


def test_a_cut_names_the_key_to_raise() -> None:
    assert "parameters.max_tokens" in reading.CUT_BEFORE
    assert "parameters.max_tokens" in reading.CUT_THINKING


def test_doubts_are_counted_by_rows() -> None:
    rows = [(reading.LAST_COUNTS, reading.THOUGHT), (), (reading.THOUGHT,)]
    counts = reading.count(rows)
    assert counts == {reading.LAST_COUNTS: 1, reading.THOUGHT: 2}
    assert reading.told(counts, 3) == [
        "1 of 3 judgments: several different verdicts in one text, the last counts",
        "2 of 3 judgments: thinking set aside",
    ]


def test_a_note_gives_its_doubts_back() -> None:
    found = reading.Reading(8.0, doubts=(reading.LAST_COUNTS, reading.CUT_AFTER))
    assert reading.doubts_of(found.note) == found.doubts
    assert reading.doubts_of("somebody's remark") == reading.doubts_of(None) == reading.doubts_of(7) == ()
    assert not any(reading.SEPARATOR in doubt for doubt in reading.DOUBTS)
