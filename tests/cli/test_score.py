"""`gshf-release score`: one JSON document alone on stdout, warnings beside it, one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release.evaluation.alpaca_eval.annotations import Annotation
from tests.conftest import Outcome
from tests.evaluation.alpaca_eval.rows import judged
from tests.evaluation.mt_bench.test_judgments import line, pair

Command = Callable[..., Outcome]
FIELDS = {"model", "win_rate", "standard_error", "length_controlled_winrate", "lc_standard_error", "avg_length"}
COUNTS = {"n_total", "n_wins", "n_wins_base", "n_draws"}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GSHF_BENCHMARK_DATA", raising=False)


def stored(rows: list[Annotation], **changes: Any) -> list[dict[str, Any]]:
    names = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference")
    return [{name: getattr(row, name) for name in names} | changes for row in rows]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_without_the_borrowed_files_the_win_rate_is_shown_and_the_reason(command: Command, tmp_path: Path) -> None:
    outcome = command("score", "alpaca_eval_2", write(tmp_path / "annotations.json", stored(judged())), "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    assert set(row) >= FIELDS | COUNTS
    assert row["model"] == "mine"
    assert row["n_total"] == 60
    assert row["length_controlled_winrate"] is None
    assert row["lc_standard_error"] is None
    assert "df_gamed.csv" in row["lc_reason"]
    table = command("score", "alpaca_eval_2", "annotations.json")
    assert table.code == 0
    assert "no LC win rate: df_gamed.csv" in table.out


def test_several_models_and_several_files_are_rows(command: Command, tmp_path: Path) -> None:
    both = stored(judged()[:30], annotator="x") + stored(judged()[30:], annotator="x", generator_2="other")
    paths = [write(tmp_path / "a.json", both), write(tmp_path / "b.json", stored(judged(), annotator="y"))]
    outcome = command("score", "alpaca_eval_2", *paths, "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert [(row["model"], row["judge"], Path(row["file"]).name) for row in rows] == [
        ("mine", "x", "a.json"),
        ("other", "x", "a.json"),
        ("mine", "y", "b.json"),
    ]
    assert {row["lc_label"] for row in rows} == {"hybrid"}
    assert "Warning: a.json, mine: Hybrid (another judge, x)" in outcome.err


def test_a_stand_in_for_a_borrowed_file_needs_permission_and_is_labelled(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    header = "model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    lines = [f"a,{number},0.{number:03},{number / 50 - 0.5},{(number % 7) / 7},False\n" for number in range(60)]
    (folder / "df_gamed.csv").write_text(header + "".join(lines), encoding="utf-8")
    path = write(tmp_path / "a.json", stored(judged()))
    refused = command("score", "alpaca_eval_2", path, "--data", folder)
    assert refused.code == 1
    assert "--allow-unverified-data" in refused.line
    outcome = command(
        "score", "alpaca_eval_2", path, "--data", folder, "--allow-unverified-data", "--as-published", "--json"
    )
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    assert row["data"] == "unverified: df_gamed.csv"
    assert row["lc_low"] <= row["length_controlled_winrate"] <= row["lc_high"]
    assert "Warning: Not the pinned files" in outcome.err


def test_mt_bench_is_scored_in_json_and_as_a_table(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "gpt-4_single.jsonl"
    rows = [line(), line(tstamp=9.0, score=6), line(turn=2, score=-1), pair()]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    outcome = command("score", "mt_bench", path, "--json")
    assert outcome.code == 0, outcome.err
    single, first, second = json.loads(outcome.out)
    assert (single["model"], single["first_turn"], single["second_turn"], single["average"]) == ("mine", 6, None, 6)
    assert (single["n"], single["n_unparsed"], single["n_duplicates"], single["lower_bound"]) == (1, 1, 1, 3.5)
    assert single["by_category"] == {"writing": 6}
    assert [(row["model"], row["tie"], row["adjusted_win_rate"]) for row in (first, second)] == [
        ("a", 1, 0.5),
        ("b", 1, 0.5),
    ]
    assert "FastChat, which averages all of them, would print 7.000000" in outcome.err
    table = command("score", "mt_bench", path)
    assert table.code == 0
    assert "MT-Bench, pairwise" in table.out
    assert "Warning" not in table.out


def test_mt_bench_shows_standard_errors(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    singles = [
        line(score=8),
        line(score=6, turn=2),
        line(question_id=82, score=4),
        line(question_id=82, score=6, turn=2),
    ]
    games = [pair(g2_winner="model_1"), pair(question_id=82, g1_winner="model_2", g2_winner="model_2")]
    path.write_text("\n".join(json.dumps(row) for row in [*singles, *games]), encoding="utf-8")
    single, first, _ = json.loads(command("score", "mt_bench", path, "--json").out)
    assert (single["standard_error"], single["first_turn_error"], first["standard_error"]) == (1.0, 2.0, 0.5)
    table = command("score", "mt_bench", path).out
    assert "6.000 ± 1.000" in table
    assert "50.00 ± 50.00" in table


@pytest.mark.parametrize("benchmark", ["alpaca_eval_2", "mt_bench"])
@pytest.mark.parametrize("content", [None, b"", b"[{", b"\x1f\x8bxx", b"\xff\xff"])
def test_a_file_that_cannot_be_scored_is_one_line(
    command: Command, tmp_path: Path, benchmark: str, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    outcome = command("score", benchmark, path, "--json")
    assert outcome.code == 1
    assert str(path) in outcome.line
    assert outcome.out == ""


def test_a_file_of_the_other_benchmark_is_one_line(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps(line()) + "\n" + json.dumps(line(turn=2)), encoding="utf-8")
    assert "Expected is AlpacaEval's annotations.json" in command("score", "alpaca_eval_2", path).line
    assert "Expected are FastChat's lines" in command("score", "mt_bench", write(tmp_path / "a.json", [{}])).line


def test_options_of_the_other_benchmark_and_unknown_ones_are_usage_errors(command: Command, tmp_path: Path) -> None:
    assert command("score", "mt_bench", "x", "--as-published").code == 2
    assert command("score", "arena", "x").code == 2
    assert command("score", "mt_bench").code == 2


def test_one_bad_file_keeps_no_good_one_back(command: Command, tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", stored(judged(), annotator="x"))
    coded = [row | {"preference": round(row["preference"] - 1)} for row in stored(judged(), annotator="x")]
    files = [first, write(tmp_path / "coded.json", coded), tmp_path / "no.json"]
    files.append(write(tmp_path / "b.json", stored(judged(), annotator="x", generator_2="other")))
    outcome = command("score", "alpaca_eval_2", *files, "--json")
    assert outcome.code == 1
    assert [row["model"] for row in json.loads(outcome.out)] == ["mine", "other"]
    errors = [text for text in outcome.err.splitlines() if text.startswith("Error: ")]
    assert len(errors) == 2
    assert "coded.json: its preferences are 0 and 1" in errors[0]
    assert "no.json does not exist" in errors[1]
    ratings = tmp_path / "j.jsonl"
    ratings.write_text(json.dumps(line()), encoding="utf-8")
    outcome = command("score", "mt_bench", tmp_path / "no.jsonl", ratings, "--json")
    assert outcome.code == 1
    assert [row["model"] for row in json.loads(outcome.out)] == ["mine"]
    assert outcome.err.splitlines()[-1].endswith("no.jsonl does not exist.")


def test_doubtful_preferences_are_said_before_the_number(command: Command, tmp_path: Path) -> None:
    rows = stored(judged(), annotator="x")
    draws = [row | {"preference": 0} for row in rows[:5]] + rows[5:]
    outcome = command("score", "alpaca_eval_2", write(tmp_path / "a.json", draws))
    assert "5 of 60 preferences are 0 and count as draws" in outcome.err
    lost = command("score", "alpaca_eval_2", write(tmp_path / "b.json", [row | {"preference": 1} for row in rows]))
    assert "All 60 preferences are 1, a win of the baseline" in lost.err
    itself = command("score", "alpaca_eval_2", write(tmp_path / "c.json", stored(judged(), generator_1="mine")))
    assert "mine is compared with itself" in itself.err


def test_a_model_compared_with_itself_has_no_score(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    itself = [pair(model_1="a", model_2="a", question_id=number) for number in (81, 82)]
    path.write_text("\n".join(json.dumps(row) for row in itself), encoding="utf-8")
    outcome = command("score", "mt_bench", path)
    assert outcome.code == 1
    assert "in every comparison model_1 and model_2 are the same, a." in outcome.line
    won = pair(g1_winner="model_1", g2_winner="model_1")
    path.write_text("\n".join(json.dumps(row) for row in [*itself, won]), encoding="utf-8")
    outcome = command("score", "mt_bench", path, "--json")
    assert outcome.code == 0
    assert [(row["model"], row["n"], row["adjusted_win_rate"]) for row in json.loads(outcome.out)] == [
        ("a", 1, 1.0),
        ("b", 1, 0.0),
    ]
    assert "2 comparisons of a with itself are left out." in outcome.err
    assert "159 of MT-Bench's 160 games between a and b are missing." in outcome.err


def test_part_of_mt_bench_is_marked_in_the_table(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (line(), line(turn=2))), encoding="utf-8")
    outcome = command("score", "mt_bench", path)
    assert "158 of MT-Bench's 160 judgments are missing" in outcome.err
    assert "2 of 160 (incomplete)" in outcome.out


def test_failed_judgments_are_marked_in_the_table(command: Command, tmp_path: Path) -> None:
    rows = stored(judged(), annotator="x")
    for row in rows[:6]:
        row["preference"] = None
    outcome = command("score", "alpaca_eval_2", write(tmp_path / "a.json", rows))
    assert "6 rows have no judgment" in outcome.err
    assert "54 of 60 (incomplete)" in outcome.out
    path = tmp_path / "j.jsonl"
    scores = [line(question_id=81 + number // 2, turn=1 + number % 2) for number in range(160)]
    path.write_text("\n".join(json.dumps(row | {"score": 80}) for row in scores[:40]), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.writelines("\n" + json.dumps(row) for row in scores[40:])
    assert "120 of 160 (incomplete)" in command("score", "mt_bench", path).out
    path.write_text("\n".join(json.dumps(row | {"score": -1 if not n else 8}) for n, row in enumerate(scores)))
    told = command("score", "mt_bench", path).out
    assert "159 of 160" in told
    assert "incomplete" not in told


def test_part_of_the_games_is_marked_in_the_table(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(pair(g1_winner="model_1", g2_winner="model_1")), encoding="utf-8")
    assert "1 of 160 (incomplete)" in command("score", "mt_bench", path).out


@pytest.mark.parametrize("judge", ["gpt-4", "judge-z"])
def test_stored_verdicts_that_the_texts_contradict_are_told(command: Command, tmp_path: Path, judge: str) -> None:
    path = tmp_path / "j.jsonl"
    rows = [
        line(judge=[judge, "single-v1"], score=3, judgment="Rating: [[8]]"),
        line(judge=[judge, "single-v1"], turn=2, score=8, judgment='{"rating": 8}'),  # another program's reading
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    outcome = command("score", "mt_bench", path)
    assert (
        "1 ratings in the file are not those that the judge's texts state (j.jsonl:1: 3, its text says 8); the file's count."
    ) in outcome.err.replace(f"{tmp_path}/", "")
    game = pair(g1_winner="model_2", g2_winner="model_1", g1_judgment="[[A]]", g2_judgment="[[B]]")
    path.write_text(json.dumps(game | {"judge": [judge, "pair-v2"]}), encoding="utf-8")
    assert "1 winners in the file are not those that the judge's texts name" in command("score", "mt_bench", path).err
