"""What `eval` says beyond a rate: paired comparisons, calibrated estimates, judge noise, and one budget for a whole command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from gshf_release.evaluation import metrics
from gshf_release.evaluation.calibration import Calibration, calibrate, default_path
from gshf_release.evaluation.calibration.replay import read_official
from gshf_release.evaluation.reproduction.evidence import Source, from_run
from gshf_release.results import find, select
from tests.end_to_end.judged import Command, cells_of, prefers_longer
from tests.evaluation import own
from tests.evaluation.calibration.judged import StubJudge, official_rows, write
from tests.servers.chat import ChatServer

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
    measured = from_run(Source(tmp_path / "run"), "answers")
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
    assert rate.note == "mean of 2 judgments of each answer"
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


def test_repeats_of_games_are_refused_in_one_line(evaluate: Command, server: ChatServer) -> None:
    outcome = evaluate("--repeats", 2, "--baseline", "nobody", kind="mt_bench_pair")
    assert outcome.code == 1
    assert "--repeats: own-mt-bench-pair plays pairs of MT-Bench" in outcome.line
    assert server.received == []
