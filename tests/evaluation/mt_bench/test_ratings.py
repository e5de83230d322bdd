"""The rating in a judge's text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gshf_release.evaluation.mt_bench.ratings import UNPARSED, rating


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
