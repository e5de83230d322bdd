"""The rating in a judge's text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.evaluation.mt_bench.ratings import (
    NO_RATING,
    NO_VERDICT,
    OFF_SCALE,
    UNPARSED,
    rating,
    read_rating,
    read_winner,
)
from gshf_release.evaluation.verdicts.reading import (
    CUT_AFTER,
    CUT_BEFORE,
    CUT_THINKING,
    FASTCHAT_COUNTS,
    FILTERED_BEFORE,
    LAST_COUNTS,
    ONLY_THINKING,
    THOUGHT,
    Reading,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good. Rating: [[8]]", 8),
        ("[[8.5]]", 8.5),
        ("[[7.]]", 7),
        ("[[3]] or rather [[9]]", 3),
        ("see [1], so [[6]]", 6),  # the double brackets come first wherever they stand
        ("[4]", 4),
        ("x[2] = 1", 2),  # the fallback takes it from code, as FastChat does
        ("[[11]]", 11),  # no check of the range, as in the published numbers
        ("[[-3]]", UNPARSED),
        ("[[ 8 ]]", UNPARSED),
        ("Rating: 8", UNPARSED),
        ("$ERROR$", UNPARSED),
        ("", UNPARSED),
    ],
)
def test_the_rating_is_read_as_fastchat_reads_it(text: str, expected: float) -> None:
    assert rating(text) == expected


def test_real_judgments_are_read_as_stored(test_data: Path) -> None:
    path = test_data / "mt_bench" / "edge_cases.jsonl"
    if not path.is_file():
        pytest.skip(f"no MT-Bench data at {test_data}; set GSHF_TEST_DATA")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    assert len(rows) == 96
    assert all(rating(row["judgment"]) == row["score"] for row in rows)
    read_anew = [read_rating(row["judgment"]).value for row in rows]
    assert read_anew == [None if row["score"] == UNPARSED else row["score"] for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rating: [[9]]", 9),
        ("**Rating: [[9]]**", 9),
        ("Rating: **[[9]]**/10", 9),
        ("[[ 9 ]]", 9),
        ("[[9.5]]", 9.5),
        ("[[9/10]]", 9),
        ("[[ 9 out of 10 ]]", 9),
        ("[[**9**]]", 9),
        ("[[Rating: 9]]", 9),
        ("[[10]]", 10),
        ("[[1]]", 1),
        ("[[8]] … on second thought [[8.0]]", 8),
        ("这个回答很好。评分：[[7]]", 7),
        ("评分[[7]]", 7),
        ("评分：［［７］］", 7),
        ("评分：【【7】】", 7),
        ("```\nRating: [[9]]\n```", 9),
        ("`[[9]]`", 9),
        ("np.array([[1]]) is right. Rating: [[5]]", 5),
        ("The matrix is [[1, 2], [3, 4]]. Rating: [[5]]. (Not [[1, 2]].)", 5),
        ("Rating: [[9]]\n\nSource: [[1]](https://a.example)", 9),
        ("Fine. Rating: [8]", 8),
        ("**Rating:** [8]", 8),
        ("[4]", 4),
    ],
)
def test_a_stand_ins_rating(text: str, expected: float) -> None:
    assert read_rating(text) == Reading(expected)


@pytest.mark.parametrize(
    "text",
    [
        "x[0] is used. Final score: 9/10",
        "arr[3] is wrong",
        "a = [[1,2],[3]]",
        "x = [[1]]",
        "np.array([[7]]) is right",
        "x[[1]] in R",
        "See [1] and [2].",
        "As [3] says, good.",
        "```python\nx = [[1]]\n```\nGood.",
        "`[[1]]` is what it prints. Good.",
        "[[7]](https://a.example)",
        "I would rate this answer 8 out of 10.",
        "Rating: 9",
        "score = [9]",
        "[[rating]]",
        "I cannot rate it.",
        "$ERROR$",
    ],
)
def test_a_number_that_is_no_rating_is_not_read(text: str) -> None:
    assert read_rating(text) == Reading(None, NO_RATING)


@pytest.mark.parametrize(
    "mark", ["11", "0", "-3", "1e9", "nan", "inf", "0.5", "10.01", "8-9", "4/5", "90/100", "8,5", "N/A", "?"]
)
def test_a_rating_outside_the_scale_is_a_failed_judgment(mark: str) -> None:
    assert read_rating(f"Rating: [[{mark}]]") == Reading(None, OFF_SCALE)
    assert read_rating(f"As in [[5]]. Rating: [[{mark}]]") == Reading(None, OFF_SCALE)


@pytest.mark.parametrize("text", ["Rating: [[11]]", "[[0]]", "Rating: [12]"])
def test_a_rating_outside_the_scale_is_one_for_an_official_judge_too(text: str) -> None:
    assert read_rating(text, official=True) == Reading(None, OFF_SCALE)


def test_of_several_ratings_the_last_counts_and_says_so() -> None:
    text = "On a scale of [[1]] to [[10]], this deserves [[9]]"
    assert read_rating(text) == Reading(9.0, doubts=(LAST_COUNTS,))
    assert read_rating(text, official=True) == Reading(1.0, doubts=(FASTCHAT_COUNTS,))
    assert read_rating("[[8]] or [[8]]", official=True) == Reading(8.0)


def test_what_stands_in_the_thinking_is_no_rating() -> None:
    assert read_rating("<think>Maybe [[3]]</think>\nRating: [[9]]") == Reading(9.0, doubts=(THOUGHT,))
    assert read_rating("Rating: [[9]]", reasoning="Maybe [[3]]") == Reading(9.0, doubts=(THOUGHT,))
    assert read_rating("<think>Maybe [[3]]</think>") == Reading(None, ONLY_THINKING)


def test_a_text_that_was_cut() -> None:
    assert read_rating("Good because", "length") == Reading(None, CUT_BEFORE)
    assert read_rating("A scale of [[1]] to [[10]], so", "length") == Reading(None, CUT_BEFORE)
    assert read_rating('The format is "Rating: [[5]]", so', "length") == Reading(None, CUT_BEFORE)
    assert read_rating("<think>[[5]]", "length") == Reading(None, CUT_THINKING)
    assert read_rating("Rating: [[8]]", "length") == Reading(8.0, doubts=(CUT_AFTER,))
    assert read_rating("Rating: [[8]]. It is good because", "length") == Reading(8.0, doubts=(CUT_AFTER,))
    assert read_rating("", "content_filter") == Reading(None, FILTERED_BEFORE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[A]]", "A"),
        ("**[[B]]**", "B"),
        ("[[ C ]]", "tie"),
        ("[[Tie]]", "tie"),
        ("［［Ｂ］］", "B"),
        ("<think>[[A]]</think>[[B]]", "B"),
        ("x[[A]] is wrong. [[B]]", "B"),
        ("[A]", None),
        ("[[a]]", None),
        ("A", None),
    ],
)
def test_a_stand_ins_winner(text: str, expected: str | None) -> None:
    assert read_winner(text).value == expected


def test_of_several_winners_the_last_counts_and_says_so() -> None:
    assert read_winner("[[A]]? No: [[B]]") == Reading("B", doubts=(LAST_COUNTS,))
    assert read_winner("[[B]]? No: [[A]]", official=True) == Reading("A", doubts=(FASTCHAT_COUNTS,))
    assert read_winner("Neither.") == Reading(None, NO_VERDICT)


@given(st.text(alphabet="[]0123456789./ \n`xRating:-ABC<think>", max_size=60), st.sampled_from(["stop", "length"]))
def test_whatever_a_judge_says_a_rating_is_from_1_to_10_or_failed(text: str, finish_reason: str) -> None:
    for official in (False, True):
        found = read_rating(text, finish_reason, official=official)
        assert bool(found.failed) == (found.value is None)
        assert found.value is None or 1 <= found.value <= 10
        assert read_winner(text, finish_reason, official=official).value in (None, "A", "B", "tie")
