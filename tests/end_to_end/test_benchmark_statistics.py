"""What `eval` says beyond a rate: paired comparisons, calibrated estimates, judge noise, and one budget for a whole command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from gshf_release.data.results import find, select
from gshf_release.evaluation import metrics
from gshf_release.evaluation.calibration import Calibration, calibrate, default_path
from gshf_release.evaluation.calibration.replay import read_official
from gshf_release.evaluation.judging import batch
from gshf_release.evaluation.judgments import spent
from gshf_release.evaluation.reproduction.evidence import from_run
from gshf_release.evaluation.verdicts.reading import BY_TEXT
from gshf_release.release.benchmark_judgments import BenchmarkJudgment
from gshf_release.run.directory import RunDirectory
from tests.end_to_end.judged import Command, cells_of, one_at_a_time, prefers_longer
from tests.evaluation import own
from tests.evaluation.calibration.judged import StubJudge, official_rows, write
from tests.release.test_data_sets import FACTS, release
from tests.servers.chat import ChatServer
from tests.servers.judge import KEY as REPLAY_KEY
from tests.servers.judge import JudgeServer, longer_wins

JUDGE = "own-alpaca-eval-2/stub"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    rows = official_rows(100)
    official = read_official(write(rows, tmp_path_factory.mktemp("official")))
    return calibrate(official, StubJudge(rows, agreement=0.9, name=JUDGE)).model_copy(
        update={"baseline": "own_baseline"}
    )


@pytest.fixture
def judged(command: Command, files: Path, server: ChatServer, tmp_path: Path) -> Command:
    """Judge answers of which `wins` are longer than the baseline's."""

    def call(wins: int, *options: object, model: str = "theirs", **judge: Any) -> Any:
        rows = [
            {"instruction": text, "output": "x" * (60 if number < wins else 3), "generator": model}
            for number, text in enumerate(own.INSTRUCTIONS)
        ]
        (files / f"{model}.json").write_text(json.dumps(rows), encoding="utf-8")
        by = own.judge(files, "alpaca_eval_2", server.address, **judge)
        place = ("--benchmark", files / "own-alpaca.yaml", "--judge", by, "--run", tmp_path / "run")
        return command("eval", "their-model", "--outputs", files / f"{model}.json", *place, *options)

    return call


def test_each_iteration_is_compared_with_the_base_and_the_one_before_on_the_same_prompts(
    command: Command, trained: Path, files: Path, server: ChatServer
) -> None:
    judge = own.judge(files, "alpaca_eval_2", server.address)
    words = ["--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--profile", files / "exact.yaml"]
    assert command("eval", trained, *words, "--iteration", 2).code == 0
    assert not (trained / "iteration-2/own-alpaca/own-alpaca-eval-2-stub/comparisons").exists()
    outcome = command("eval", trained, *words)
    assert outcome.code == 0, outcome.err
    assert f"own-alpaca, judged by {JUDGE} against own_baseline: paired differences" in outcome.out
    cells = select(cells_of(trained), table="own-alpaca", row="iteration-2")
    rates = {row: find(cells_of(trained), row=row, judge=JUDGE, metric="win rate") for row in ("base", "iteration-1")}
    own_rate = find(cells, metric="win rate")
    for other, rate in rates.items():
        found = find(cells, metric=f"win rate minus {other}")
        assert found is not None
        assert rate is not None
        assert own_rate is not None
        assert found.value == pytest.approx(own_rate.value - rate.value)
        assert found.n == 5
        for metric in (metrics.low(found.metric), metrics.high(found.metric), metrics.sign_test(other)):
            assert find(cells, metric=metric) is not None
    verified = command("verify", trained)
    assert verified.code == 0, verified.err


def test_a_row_that_was_asked_alone_needs_no_judgments_of_the_others(
    command: Command, trained: Path, files: Path, server: ChatServer
) -> None:
    first = own.judge(files, "alpaca_eval_2", server.address)
    words = ["--benchmark", files / "own-alpaca.yaml", "--profile", files / "exact.yaml"]
    assert command("eval", trained, *words, "--judge", first).code == 0
    asked = len(server.received)
    again = own.judge(files, "alpaca_eval_2", server.address, parameters={"max_tokens": 7})
    assert command("eval", trained, *words, "--judge", again, "--iteration", 2).code == 0
    assert len(server.received) == asked + len(own.INSTRUCTIONS)


def test_models_given_as_files_are_compared_with_the_first(judged: Command, tmp_path: Path) -> None:
    assert judged(2, model="one").code == 0
    assert judged(5, model="two").code == 0
    cells = select(cells_of(tmp_path / "run"), row="two")
    found = find(cells, metric="win rate minus one")
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(60.0), 5)
    p = find(cells, metric="sign test p against one")
    assert p is not None
    assert (p.value, p.note) == (0.25, "3 up, 0 down, 2 equal")  # 2 / 2^3
    error = math.sqrt(3 * 40**2 + 2 * 60**2) / math.sqrt(4 * 5)  # differences 0, 0, 100, 100, 100 around 60
    assert found.standard_error == pytest.approx(error)
    least = find(cells, metric="minimal detectable difference from one")
    assert least is not None
    assert least.value == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)


def test_a_calibrated_estimate_has_its_own_column_and_is_verified(
    judged: Command, command: Command, calibration: Calibration, tmp_path: Path
) -> None:
    file = calibration.save(tmp_path / "calibration.json")
    outcome = judged(2, "--calibration", file)
    assert outcome.code == 0, outcome.err
    assert "calibrated win rate" in outcome.out
    file.unlink()
    cells = cells_of(tmp_path / "run")
    rate, found = (find(cells, row="theirs", metric=metric) for metric in ("win rate", metrics.CALIBRATED))
    assert rate is not None
    assert found is not None
    expected = calibration.estimate(rate.value or 0.0, rate.standard_error)
    assert found.value == pytest.approx(expected.value)
    assert found.standard_error == pytest.approx((expected.high - expected.low) / (2 * 1.6448536))
    assert f"90% interval {expected.low:.2f} to {expected.high:.2f}" in found.note
    assert command("verify", tmp_path / "run").code == 0, "it needs no file outside the run"
    again = judged(2)
    assert again.code == 0
    assert find(cells_of(tmp_path / "run"), metric=metrics.CALIBRATED) == found, "a later command does not forget it"


def test_a_calibration_in_the_cache_is_found_by_the_judges_name(
    judged: Command, calibration: Calibration, tmp_path: Path
) -> None:
    calibration.save(default_path(JUDGE))
    assert judged(2).code == 0
    found = find(cells_of(tmp_path / "run"), metric=metrics.CALIBRATED)
    assert found is not None
    assert found.value is not None


def test_an_estimate_outside_the_range_is_refused_and_says_why(
    judged: Command, calibration: Calibration, tmp_path: Path
) -> None:
    outcome = judged(5, "--calibration", calibration.save(tmp_path / "calibration.json"))
    assert outcome.code == 0, outcome.err
    found = find(cells_of(tmp_path / "run"), metric=metrics.CALIBRATED)
    assert found is not None
    assert found.value is None
    assert found.note.startswith("none: The win rate 100.00 is outside the calibrated range")
    assert "theirs, calibrated win rate: none: The win rate 100.00 is outside" in re.sub(r"\s+", " ", outcome.out)


def test_a_calibration_against_another_baseline_gives_no_estimate(
    judged: Command, calibration: Calibration, tmp_path: Path
) -> None:
    other = calibration.model_copy(update={"baseline": "another"})
    assert judged(2, "--calibration", other.save(tmp_path / "calibration.json")).code == 0
    found = find(cells_of(tmp_path / "run"), metric=metrics.CALIBRATED)
    assert found is not None
    assert found.note.startswith("none: it was calibrated against another, this is against own_baseline")


def test_a_calibration_of_another_judge_is_an_error(judged: Command, calibration: Calibration, tmp_path: Path) -> None:
    other = calibration.model_copy(update={"judge": "somebody"})
    outcome = judged(2, "--calibration", other.save(tmp_path / "calibration.json"))
    assert outcome.code == 1
    assert f"is a calibration of the judge somebody, not of {JUDGE}" in outcome.err


def test_a_claim_is_checked_by_the_calibrated_number(judged: Command, calibration: Calibration, tmp_path: Path) -> None:
    assert judged(2, "--calibration", calibration.save(tmp_path / "calibration.json")).code == 0
    path = tmp_path / "run/results.json"
    path.write_text(path.read_text(encoding="utf-8").replace('own-alpaca"', 'alpaca_eval_2"'), encoding="utf-8")
    measured = from_run("theirs", tmp_path / "run", "answers")
    (entry,) = [entry for entry in measured if entry.calibrated]
    assert (entry.metric, entry.judge) == ("win rate", JUDGE)
    assert entry.error > 0


def test_repeated_comparisons_are_averaged_and_show_the_judges_noise(
    judged: Command, command: Command, server: ChatServer, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> str:
        """Prefer the longer answer, but in the second repeat call the first question the other way round."""
        swapped = body["seed"] == 1 and own.INSTRUCTIONS[0] in body["messages"][-1]["content"]
        said = prefers_longer(body)
        return {"m": "M", "M": "m"}[said] if swapped else said

    server.answer = answer
    outcome = judged(2, "--repeats", 2, parameters={"seed": 0})
    assert outcome.code == 0, outcome.err
    assert len(server.received) == 2 * len(own.INSTRUCTIONS)
    cells = cells_of(tmp_path / "run")
    rate = find(cells, metric="win rate")
    assert rate is not None
    assert rate.value == pytest.approx(100 * 1.5 / 5)
    assert rate.note.split("; ") == ["mean of 2 judgments of each answer", f"10 of 10 judgments: {BY_TEXT}"]
    noise = find(cells, metric=metrics.NOISE)
    assert noise is not None
    assert noise.value == pytest.approx(math.sqrt(2 * 50**2 / 5))  # one of five items differs by 100, freedom 5
    assert noise.n == 10
    share = find(cells, metric=metrics.NOISE_SHARE)
    assert share is not None
    assert share.value == pytest.approx(100 * (1000 / (2 * 5)) / (rate.standard_error or 0) ** 2)
    assert "judge noise: standard deviation 31.62" in re.sub(r"\s+", " ", outcome.out)
    assert command("verify", tmp_path / "run").code == 0


def test_repeated_ratings_of_mt_bench_show_the_judges_noise(
    evaluate: Command, command: Command, tmp_path: Path, test_data: Path, server: ChatServer
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")
    server.answer = lambda body: f"Rating: [[{4 + 2 * body['seed']}]]"
    options = ("--data", test_data, "--repeats", 3)
    outcome = evaluate(*options, kind="mt_bench_single", parameters={"seed": 0})
    assert outcome.code == 0, outcome.err
    assert len(server.received) == 18
    cells = select(cells_of(tmp_path / "run"), table="own-mt")
    average, noise, share = (find(cells, metric=name) for name in ("average", metrics.NOISE, metrics.NOISE_SHARE))
    assert average is not None
    assert noise is not None
    assert share is not None
    assert (average.value, average.n) == (6.0, 18)
    assert noise.value == pytest.approx(2.0)  # 4, 6, 8 around 6
    ends = [find(cells, metric=end("average")) for end in (metrics.low, metrics.high)]
    assert [end.value for end in ends if end is not None] == [6.0, 6.0], "every question has the same mean"
    assert command("verify", tmp_path / "run").code == 0


def test_repeated_games_of_mt_bench_are_averaged_and_show_the_judges_noise(
    evaluate: Command, command: Command, files: Path, tmp_path: Path, test_data: Path, server: ChatServer
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")

    def answer(body: dict[str, Any]) -> str:
        """Name the model in both orders, but in the second repeat the first place, which makes a tie."""
        text = body["messages"][-1]["content"]
        return "[[A]]" if body["seed"] == 1 or text.index(BASELINE_WORDS) > len(text) / 2 else "[[B]]"

    server.answer = answer
    options = ("--data", test_data, "--repeats", 2, "--baseline", mt_baseline(files))
    outcome = evaluate(*options, kind="mt_bench_pair", parameters={"seed": 0})
    assert outcome.code == 0, outcome.err
    assert len(server.received) == 2 * 2 * 6
    (file,) = (tmp_path / "run").glob("*/own-mt/*/judgments/pair.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["repeat"] for row in rows] == [0] * 6 + [1] * 6
    won = [
        {"model_1": 100.0}.get(row["g1_winner"], 0.0) if row["g1_winner"] == row["g2_winner"] else 50.0 for row in rows
    ]
    cells = select(cells_of(tmp_path / "run"), table="own-mt")
    rate, noise = (find(cells, metric=name) for name in ("adjusted win rate", metrics.NOISE))
    assert rate is not None
    assert noise is not None
    assert (rate.value, rate.n) == (pytest.approx(sum(won) / 12), 12)
    within = sum((first - second) ** 2 / 2 for first, second in zip(won[:6], won[6:], strict=True)) / 6
    assert within > 0, "the repeats differ"
    assert (noise.value, noise.n) == (pytest.approx(math.sqrt(within)), 12)
    assert command("verify", tmp_path / "run").code == 0


BASELINE_WORDS = "the words of somebody else"


def mt_baseline(files: Path) -> Path:
    """Write answers of another model to the questions of `own-mt`."""
    lines = [
        {
            "question_id": 501 + number,
            "model_id": "theirs",
            "choices": [{"index": 0, "turns": [f"{BASELINE_WORDS} {number}"] * 2}],
        }
        for number in range(len(own.CATEGORIES))
    ]
    path = files / "theirs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_mt_benchs_judgments_are_published_without_anybody_elses_text(
    command: Command, trained: Path, files: Path, server: ChatServer, test_data: Path
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose judge prompts are needed; set GSHF_TEST_DATA")
    words = ["--benchmark", files / "own-mt.yaml", "--profile", files / "exact.yaml", "--data", test_data]
    seeded = {"parameters": {"seed": 0}}
    server.answer = lambda body: f"Judged. Rating: [[{5 + body['seed']}]]" if body["seed"] else "no number"
    single = own.judge(files, "mt_bench_single", server.address, failed_share=0.6, **seeded)
    outcome = command("eval", trained, *words, "--judge", single, "--repeats", 2)
    assert outcome.code == 0, outcome.err
    server.answer = lambda body: "Judged. [[A]]" if body["seed"] else "Judged. [[C]]"
    pair = own.judge(files, "mt_bench_pair", server.address, **seeded)
    outcome = command("eval", trained, *words, "--judge", pair, "--baseline", mt_baseline(files), "--repeats", 2)
    assert outcome.code == 0, outcome.err
    (files / "facts.yaml").write_text(FACTS, encoding="utf-8")
    release(RunDirectory.open(trained), files / "facts.yaml")
    folder = trained / "release/tiny-judgments/main"
    rows = BenchmarkJudgment.read(folder / "benchmarks/iteration-2.parquet")
    given = {
        (str(line["question_id"]), turn): line["choices"][0]["turns"][turn - 1]
        for line in map(
            json.loads,
            (trained / "iteration-2/own-mt/answers/model_answer.jsonl").read_text(encoding="utf-8").splitlines(),
        )
        for turn in (1, 2)
    }
    assert [row.answer for row in rows] == [given[row.question, row.turn] for row in rows]
    singles, pairs = (
        [row for row in rows if row.judge.startswith(f"own-mt-bench-{kind}/")] for kind in ("single", "pair")
    )
    assert (len(singles), len(pairs)) == (12, 12), "three questions, two turns, two repeats"
    assert {(row.repeat, row.rating, row.preference, row.baseline) for row in singles} == {
        (0, None, None, None),
        (1, 6.0, None, None),
    }
    assert {(row.repeat, row.rating, row.preference, row.baseline) for row in pairs} == {
        (0, None, 0.5, "theirs"),
        (1, None, 0.5, "theirs"),
    }
    for row in rows:
        number = int(row.question) - 501
        asked = (f"What is {own.CATEGORIES[number]}, {number}?", f"And why {own.CATEGORIES[number]}?")[row.turn - 1]
        assert row.question_sha256 == sha256(asked)
        assert row.baseline_answer_sha256 == (None if row.baseline is None else sha256(f"{BASELINE_WORDS} {number}"))
    held = (folder / "benchmarks/iteration-2.parquet").read_bytes() + (folder / "README.md").read_bytes()
    texts = {str(value) for row in rows for value in dataclasses.astuple(row) if value != row.answer}
    for foreign in (BASELINE_WORDS, "What is writing", "And why", "Judged", "no number"):
        assert not any(foreign in text for text in texts)
        assert foreign.encode() not in held or any(foreign in row.answer for row in rows)
    assert DatasetCard.load(folder / "README.md").data.license == "cc-by-4.0", (
        "of the prompts, the strictest ingredient"
    )
    assert command("verify", folder).code == 0


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_judgments_of_benchmarks_are_published_without_anybody_elses_text(
    command: Command, trained: Path, files: Path, server: ChatServer
) -> None:
    judge = own.judge(files, "alpaca_eval_2", server.address)
    words = ["--benchmark", files / "own-alpaca.yaml", "--judge", judge, "--profile", files / "exact.yaml"]
    assert command("eval", trained, *words).code == 0
    (files / "facts.yaml").write_text(FACTS, encoding="utf-8")
    run = RunDirectory.open(trained)
    release(run, files / "facts.yaml")
    folder = trained / "release/tiny-judgments/main"
    (file,) = trained.glob("iteration-2/own-alpaca/*/judgments/annotations.json")
    expected = json.loads(file.read_text(encoding="utf-8"))
    rows = BenchmarkJudgment.read(folder / "benchmarks/iteration-2.parquet")
    assert [(row.question, row.answer, row.preference, row.judge) for row in rows] == [
        (str(number), row["output_2"], row["preference"] - 1, JUDGE) for number, row in enumerate(expected)
    ]
    for row, text in zip(rows, own.INSTRUCTIONS, strict=True):
        assert row.question_sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert (
            row.baseline_answer_sha256 == hashlib.sha256(expected[int(row.question)]["output_1"].encode()).hexdigest()
        )
    own_texts = {text for row in rows for text in (row.question, row.answer)}
    held = {str(value) for row in rows for value in dataclasses.astuple(row)} - own_texts
    for text in (*own.INSTRUCTIONS, *(row["output_1"] for row in expected)):
        assert not any(text in value for value in held)
    card = DatasetCard.load(folder / "README.md")
    assert {"config_name": "benchmarks", "data_files": [{"split": "train", "path": "benchmarks/*.parquet"}]} in (
        card.data.to_dict()["configs"]
    )
    assert f"| `own-alpaca` | {JUDGE} | own\\_baseline | 10 |" in card.text
    assert command("verify", folder).code == 0


def test_one_limit_holds_for_all_rows_of_a_command(
    command: Command, trained: Path, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OWN_JUDGE_KEY", REPLAY_KEY)
    words = ["--benchmark", files / "own-alpaca.yaml", "--profile", files / "exact.yaml", "--limit", 2]
    with JudgeServer(longer_wins) as replay:

        def judge(max_tokens: int) -> Path:
            """Return a dear judge that is asked one thing at a time; another limit makes other judgments."""
            settings: dict[str, Any] = {"price": {"input": 1000.0, "output": 1000.0}, "expected_tokens": 1}
            settings |= {"parameters": {"max_tokens": max_tokens}, "endpoint": one_at_a_time(replay.address)}
            return own.judge(files, "alpaca_eval_2", replay.address, **settings)

        one = command("eval", trained, *words, "--judge", judge(1), "--iteration", 0)
        assert one.code == 0, one.err
        run = RunDirectory.open(trained)
        limit = 3.75 * spent(
            run
        )  # two rows of two judgments, and no third: each reserves about four times what it costs
        outcome = command("eval", trained, *words, "--judge", judge(2), "--max-cost", f"{limit:.6f}")
    assert outcome.code == 1
    assert "--max-cost" in outcome.err
    assert 0 < spent(run) <= limit
    assert 2 + 2 < replay.numbers < 2 + 6, "more than one row was judged, and not all three"


def test_a_batch_judges_a_whole_command(
    command: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "FIRST_POLL_SECONDS", 0.01)
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", REPLAY_KEY)
    rows = [{"instruction": text, "output": "x" * 60, "generator": "theirs"} for text in own.INSTRUCTIONS]
    (files / "theirs.json").write_text(json.dumps(rows), encoding="utf-8")
    with JudgeServer(longer_wins) as replay:
        endpoint = {"address": replay.address, "key_variable": "OPENAI_API_KEY", "attempts": 3}
        by = own.judge(files, "alpaca_eval_2", replay.address, endpoint=endpoint)
        place = ("--benchmark", files / "own-alpaca.yaml", "--judge", by, "--run", tmp_path / "run")
        outcome = command("eval", "their-model", "--outputs", files / "theirs.json", *place, "--batch")
        assert outcome.code == 0, outcome.err
        assert (replay.numbers, len(replay.batches.made)) == (0, 1)
        rate = find(cells_of(tmp_path / "run"), metric="win rate")
        assert rate is not None
        assert (rate.value, rate.n) == (100.0, 5)
