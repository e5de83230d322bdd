"""MT-Bench's numbers: by hand, published, and as FastChat's own command prints them."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.evaluation.mt_bench.judgments import Judgment, PairJudgment, read
from gshf_release.evaluation.mt_bench.scoring import CATEGORIES, MTBenchScore, category, score, score_pairs


def rated(question: int, turn: int, value: float, timestamp: float = 0.0, **changes: str | int) -> Judgment:
    return replace(Judgment(question, "mine", "gpt-4", "single-v1", turn, value, timestamp), **changes)  # type: ignore[arg-type]


def compared(winner_1: str, winner_2: str, question: int = 81, timestamp: float = 0.0) -> PairJudgment:
    return PairJudgment(question, "a", "b", "gpt-4", 1, winner_1, winner_2, timestamp)


def test_ten_questions_a_category() -> None:
    assert [category(number) for number in range(81, 161)] == [name for name in CATEGORIES for _ in range(10)]
    assert category(80) == category(161) == "other"


def test_the_average_is_pooled_not_the_mean_of_the_turns() -> None:
    (found,) = score([rated(81, 1, 9), rated(82, 1, 6), rated(111, 1, 6), rated(81, 2, 3), rated(82, 2, -1)])
    assert found.first_turn == 7
    assert found.second_turn == 3
    assert found.average == 6
    assert found.lower_bound == 5
    assert (found.n, found.n_unparsed, found.n_duplicates) == (4, 1, 0)
    assert found.by_category == {"writing": 6, "math": 6}
    assert found.fastchat_average == 6
    assert any("1 of 5 judgments have no rating" in text for text in found.warnings)
    assert any("155 of MT-Bench's 160 judgments are missing" in text for text in found.warnings)


def test_standard_errors_take_the_turns_of_a_question_together() -> None:
    # ratings 8, 6 | 4, 6 around 6: the questions sum to +2 and -2, so sqrt((4 + 4) * 2 / 1) / 4
    (found,) = score([rated(81, 1, 8), rated(81, 2, 6), rated(82, 1, 4), rated(82, 2, 6)])
    assert found.standard_error == pytest.approx(1.0)
    assert found.first_turn_error == pytest.approx(2.0)
    assert found.second_turn_error == 0
    (single,) = score([rated(81, 1, 8), rated(81, 2, 6)])
    assert (single.standard_error, single.first_turn_error) == (None, None)


def test_the_adjusted_win_rate_has_a_standard_error_over_questions() -> None:
    # one win and one loss: points 1 and 0 around 1/2, so sqrt((1/4 + 1/4) * 2 / 1) / 2
    first, second = score_pairs([compared("model_1", "model_1"), compared("model_2", "model_2", question=82)])
    assert (first.standard_error, second.standard_error) == (pytest.approx(0.5), pytest.approx(0.5))
    assert score_pairs([compared("model_1", "model_1")])[0].standard_error is None


def test_of_accidental_duplicates_the_newest_counts() -> None:
    rows = [rated(81, 1, 2, timestamp=3.0), rated(81, 1, 8, timestamp=5.0), rated(81, 1, 4, timestamp=4.0)]
    (found,) = score(rows)
    assert (found.average, found.n, found.n_duplicates) == (8, 1, 2)
    assert found.fastchat_average == pytest.approx(14 / 3)
    assert "2 of 3 judgments were made again later" in found.warnings[0]
    assert "would print 4.666667" in found.warnings[0]


def test_a_newest_judgment_without_a_rating_counts_as_unparsed() -> None:
    (found,) = score([rated(81, 1, 8, timestamp=1.0), rated(81, 1, -1, timestamp=2.0)])
    assert (found.average, found.lower_bound, found.n_unparsed, found.n_duplicates) == (None, 1, 1, 1)


def test_of_equal_times_the_later_line_counts() -> None:
    assert score([rated(81, 1, 2), rated(81, 1, 8)])[0].average == 8


def test_repeats_on_purpose_are_no_duplicates() -> None:
    (found,) = score([rated(81, 1, 2, repeat=0), rated(81, 1, 4, repeat=1)])
    assert (found.average, found.n, found.n_duplicates) == (3, 2, 0)


def test_two_judges_are_two_rows() -> None:
    rows = score([rated(81, 1, 2), rated(81, 1, 8, judge="llama")])
    assert [(row.judge, row.average) for row in rows] == [("gpt-4", 2), ("llama", 8)]


def test_prompts_of_one_judge_are_one_row() -> None:
    rows = [rated(81, 1, 2), rated(111, 1, 8, prompt="single-math-v1")]
    assert [row.average for row in score(rows)] == [5]


def test_a_model_judged_on_one_turn_has_no_other() -> None:
    (found,) = score([rated(81, 2, 7)])
    assert (found.first_turn, found.second_turn) == (None, 7)


def test_questions_and_ratings_out_of_range_are_warned_about() -> None:
    (found,) = score([rated(7, 1, 10), rated(8, 1, 11), rated(9, 1, 0), rated(9, 2, 1e9)])
    assert (found.average, found.n, found.n_unparsed, found.lower_bound) == (10, 1, 3, 3.25)
    assert found.by_category == {"other": 10}
    assert found.fastchat_average == pytest.approx((10 + 11 + 0 + 1e9) / 4)
    assert any("3 questions are not MT-Bench's (81-160)" in text for text in found.warnings)
    assert any("3 ratings lie outside 1-10 and are left out as failed judgments" in text for text in found.warnings)


@given(st.lists(st.integers(-1, 10).filter(bool), min_size=1, max_size=40), st.randoms())
def test_the_order_of_lines_with_different_times_changes_nothing(values: list[int], draw: random.Random) -> None:
    rows = [rated(81 + at % 7, 1 + at % 2, value, timestamp=float(at)) for at, value in enumerate(values)]
    (before,) = score(rows)
    draw.shuffle(rows)
    (after,) = score(rows)
    assert after.average == pytest.approx(before.average)
    assert (after.n, after.n_unparsed, after.n_duplicates) == (before.n, before.n_unparsed, before.n_duplicates)
    assert after.n + after.n_unparsed + after.n_duplicates == len(values)
    assert after.average is None or after.lower_bound <= after.average + 1e-12


def test_pairs_by_hand() -> None:
    games = ["model_1 model_1", "model_2 model_2", "model_1 model_2", "tie tie", "tie model_1", "error tie"]
    rows = [compared(*game.split(), question=81 + number) for number, game in enumerate(games)]
    first, second = score_pairs([*rows, compared("model_1", "model_1", question=81, timestamp=-1.0)])
    assert (first.model, first.win, first.tie, first.loss, first.n) == ("a", 1, 3, 1, 5)
    assert (second.model, second.win, second.tie, second.loss) == ("b", 1, 3, 1)
    assert first.adjusted_win_rate == second.adjusted_win_rate == 0.5
    assert (first.win_rate, first.n_errors, first.n_duplicates) == (0.2, 1, 1)
    assert first.opponents == ("b",)


def test_pairs_of_nothing_but_errors_have_no_rate() -> None:
    first, _ = score_pairs([compared("error", "error")])
    assert (first.n, first.win_rate, first.adjusted_win_rate) == (0, None, None)


@pytest.fixture(scope="module")
def judgments(test_data: Path) -> Path:
    path = test_data / "mt_bench" / "judgments"
    if not path.is_dir():
        pytest.skip(f"no MT-Bench data at {test_data}; set GSHF_TEST_DATA")
    return path


def real(path: Path) -> dict[str, MTBenchScore]:
    return {row.model: row for row in score(read(path)[0])}


@pytest.mark.parametrize("model", ["mamba_0_5_dpo_ep3", "mamba_0_875_dpo_ep1"])
def test_published_numbers_come_out(judgments: Path, model: str) -> None:
    with (judgments.parent / "published.csv").open(encoding="utf-8") as stream:
        row = next(row for row in csv.DictReader(stream) if row["model"] == model)
    found = real(judgments / "gpt-4_single.mambainllama.jsonl")[model]
    for value, name in ((found.first_turn, "first"), (found.second_turn, "second"), (found.average, "average")):
        assert value == pytest.approx(float(row[name]), abs=1e-6)
    assert (found.n, found.n_unparsed, found.n_duplicates, found.warnings) == (160, 0, 0, ())
    assert list(found.by_category) == list(CATEGORIES)


def test_two_runs_in_one_file_give_the_second(judgments: Path) -> None:
    found = real(judgments / "gpt-4_single.mistral-orpo.jsonl")["mistral-orpo"]
    assert found.average == pytest.approx(6.3281, abs=5e-5)
    assert found.fastchat_average == pytest.approx(5.8589, abs=5e-5)
    assert (found.n, found.n_duplicates) == (160, 160)


def test_empty_judgments_are_counted_and_bounded(judgments: Path) -> None:
    (found,) = real(judgments / "gpt-4_single.gemma-with-missing.jsonl").values()
    assert (found.average, found.n, found.n_unparsed) == (pytest.approx(5.29), 150, 10)
    assert found.lower_bound == pytest.approx((150 * 5.29 + 10) / 160)


@pytest.mark.parametrize("name", ["gemma-with-missing", "mistral-orpo"])
def test_fastchat_prints_the_average_that_is_said_of_it(judgments: Path, name: str) -> None:
    path = judgments / f"gpt-4_single.{name}.jsonl"
    command = [sys.executable, "-m", "fastchat.llm_judge.show_result", "--input-file", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named" in ran.stderr:
        pytest.skip(f"show_result cannot be imported: {ran.stderr.splitlines()[-1]}")
    assert ran.returncode == 0, ran.stderr
    printed = dict(line.split() for line in ran.stdout.partition("Average")[2].splitlines()[3:] if line.strip())
    found = real(path)
    assert set(printed) == set(found)
    for model, row in found.items():
        assert float(printed[model]) == pytest.approx(row.fastchat_average, abs=1e-6)
        assert row.n_duplicates or row.average == pytest.approx(row.fastchat_average, abs=1e-12)


def test_fastchat_counts_the_same_wins(tmp_path: Path) -> None:
    import json

    pytest.importorskip("pandas")
    games = ["model_1 model_1", "model_2 model_2", "model_1 model_1", "model_1 model_2", "tie model_1", "error tie"]
    rows = []
    for number, game in enumerate(games):
        first, second = game.split()
        names = {"model_1": "a", "model_2": "b", "judge": ["gpt-4", "pair-v2"], "turn": 1, "tstamp": 1.0}
        rows.append({"question_id": 81 + number, "g1_winner": first, "g2_winner": second} | names)
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    module = "fastchat.llm_judge.show_result"
    command = [sys.executable, "-m", module, "--input-file", str(path), "--mode", "pairwise-all"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines() if line.startswith(("a ", "b "))}
    for row in score_pairs(read(path)[1]):
        assert [int(value) for value in printed[row.model][:3]] == [row.win, row.loss, row.tie]
        assert float(printed[row.model][5]) == pytest.approx(row.adjusted_win_rate, abs=1e-6)
