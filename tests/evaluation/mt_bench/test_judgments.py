"""Reading FastChat's judgment files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import DataError
from gshf_release.evaluation.mt_bench.judgments import Judgment, read
from gshf_release.evaluation.mt_bench.scoring import score
from gshf_release.evaluation.verdicts.reading import FASTCHAT_COUNTS, LAST_COUNTS, THOUGHT


def line(**changes: Any) -> dict[str, Any]:
    row = {"question_id": 81, "model": "mine", "judge": ["gpt-4", "single-v1"], "score": 8, "turn": 1, "tstamp": 5.5}
    return row | changes


def pair(**changes: Any) -> dict[str, Any]:
    row = {"question_id": 81, "model_1": "a", "model_2": "b", "judge": ["gpt-4", "pair-v2"], "turn": 1, "tstamp": 1.0}
    return row | {"g1_winner": "model_1", "g2_winner": "tie"} | changes


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_ratings_and_pairs_are_told_apart(tmp_path: Path) -> None:
    singles, pairs = read(write(tmp_path / "j.jsonl", line(), pair(), line(score=-1, turn=2)))
    assert [(one.judge, one.prompt, one.score, one.turn, one.parsed) for one in singles] == [
        ("gpt-4", "single-v1", 8.0, 1, True),
        ("gpt-4", "single-v1", -1.0, 2, False),
    ]
    assert [(one.winner_1, one.winner_2) for one in pairs] == [("model_1", "tie")]
    assert singles[1].place == f"{tmp_path / 'j.jsonl'}:5"


def test_a_packed_file_and_a_plain_judge_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(line(judge="mine", repeat=2)).encode()))
    (found,), _ = read(path)
    assert (found.judge, found.prompt, found.repeat) == ("mine", "", 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "expected an object, found list"),
        ({key: value for key, value in line().items() if key != "model"}, "has no 'model'"),
        (line(score=None), "'score' is null, not a number"),
        (line(score="8"), "'score' is \"8\", not a number"),
        (line(score=float("nan")), "'score' is NaN, not a number"),
        (line(turn=3), "'turn' is 3, not 1 or 2"),
        (line(question_id="81"), "'question_id' is \"81\", not an integer"),
        (line(judge=[]), "'judge' is \\[\\], not a name"),
        (line(model=7), "'model' is 7, not a text"),
        (pair(g1_winner="A"), "the winner 'A' is none of"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"j\.jsonl:3.*{message}"):
        read(write(tmp_path / "j.jsonl", line(), row))


def test_a_line_that_breaks_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps(line()) + '\n{"question_id": 82, "mod', encoding="utf-8")
    with pytest.raises(DataError, match=r"j\.jsonl:2 is not JSON"):
        read(path)


def test_an_empty_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text("")
    with pytest.raises(DataError, match=r"j\.jsonl is empty"):
        read(tmp_path / "j.jsonl")


THINKING = "<think>Maybe [[3]].</think> Rating: [[9]]"
SEVERAL = "On a scale of [[1]] to [[10]]: [[9]]"


def single(tmp_path: Path, **changes: Any) -> Judgment:
    (found,), _ = read(write(tmp_path / "j.jsonl", line(**changes)))
    return found


def test_the_text_of_another_judge_is_read_again_where_fastchats_rule_made_the_score(tmp_path: Path) -> None:
    found = single(tmp_path, judge=["deepseek-r1", "single-v1"], judgment=THINKING, score=3)
    assert (found.score, found.in_file, found.doubts) == (9, 3, (THOUGHT,))
    found = single(tmp_path, judge="llama", judgment="x[0] is used. Final score: 9/10", score=0)
    assert (found.parsed, found.in_file) == (False, 0)
    found = single(tmp_path, judge="llama", judgment="[[ 9 ]]", score=-1)
    assert (found.score, found.in_file) == (9, -1)


def test_a_score_that_something_else_read_stands(tmp_path: Path) -> None:
    assert single(tmp_path, judge="llama", judgment=THINKING, score=7).score == 7
    assert single(tmp_path, judge="llama", judgment="excellent", score=7).score == 7
    assert single(tmp_path, judge="llama", score=7).score == 7


def test_an_official_judges_score_stands_and_several_ratings_are_told(tmp_path: Path) -> None:
    found = single(tmp_path, judge=["gpt-4", "single-v1"], judgment=SEVERAL, score=1)
    assert (found.score, found.doubts) == (1, (FASTCHAT_COUNTS,))
    assert single(tmp_path, judge=["llama", "single-v1"], judgment=SEVERAL, score=1).score == 9


def test_a_row_that_was_read_here_keeps_its_verdict(tmp_path: Path) -> None:
    found = single(tmp_path, judge="llama", judgment="[[ 5 ]] of [[ 10 ]] would", score=-1, failed="cut by its limit")
    assert not found.parsed
    found = single(tmp_path, judge="llama", judgment=SEVERAL, score=9, note=LAST_COUNTS)
    assert (found.score, found.doubts) == (9, (LAST_COUNTS,))


def test_winners_of_another_judge_are_read_again(tmp_path: Path) -> None:
    texts = {"g1_judgment": "<think>[[A]]</think>[[B]]", "g2_judgment": "[[B]]"}
    row = pair(judge=["llama", "pair-v2"], g1_winner="model_1", g2_winner="model_1", **texts)
    _, (found,) = read(write(tmp_path / "j.jsonl", row))
    assert (found.winner_1, found.winner_2, found.doubts, found.read_anew) == ("model_2", "model_1", (THOUGHT,), True)
    _, (found,) = read(write(tmp_path / "j.jsonl", row | {"judge": ["gpt-4", "pair-v2"]}))
    assert (found.winner_1, found.winner_2, found.read_anew) == ("model_1", "model_1", False)


def test_scores_say_how_ratings_were_read(tmp_path: Path) -> None:
    rows = [line(judge="llama", judgment=THINKING, score=3), line(judge="llama", judgment=SEVERAL, score=1, turn=2)]
    (found,) = score(read(write(tmp_path / "j.jsonl", *rows))[0])
    assert (found.average, found.fastchat_average) == (9, 2)
    assert found.doubts == {LAST_COUNTS: 1, THOUGHT: 1}
    assert any("2 ratings in the file are not what the judge's answers say" in text for text in found.warnings)
    assert any(text == f"1 of 2 judgments: {LAST_COUNTS}." for text in found.warnings)
