"""A small real model behind llama.cpp's server as the judge of real questions, through the command line.

It judges about as well as a coin. What is tested is that everything between the command and a real server holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.results import find, read_cells
from tests.conftest import REPOSITORY, Outcome
from tests.evaluation.calibration.judged import official_rows, write
from tests.servers.llama_cpp import LlamaCppServer

pytestmark = pytest.mark.engines

Run = Callable[..., Outcome]
ASKED = 3
OVERRIDES = ("model=smollm2", "endpoint.concurrent_requests=1", "endpoint.timeout_seconds=300")


@pytest.fixture(scope="module")
def data(test_data: Path) -> Path:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}, whose questions are asked; set GSHF_TEST_DATA")
    return test_data


@pytest.fixture(scope="module")
def server(data: Path, smollm2_gguf: Path) -> Iterator[LlamaCppServer]:
    with LlamaCppServer(smollm2_gguf, name="smollm2", context_tokens=2048, threads=1) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Path:
    """Return a folder with two models' answers to the first questions of both benchmarks."""
    questions = json.loads((data / "alpaca_eval/reference_outputs_gpt4_1106_preview.json").read_text(encoding="utf-8"))
    for name, answer in (("mine", "I would say so, and then more. "), ("theirs", "Something short.")):
        rows = [
            {"dataset": row["dataset"], "instruction": row["instruction"], "output": answer, "generator": name}
            for row in questions[: ASKED + 1]
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    lines = (data / "mt_bench/protocol/question.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    answers = [
        {
            "question_id": json.loads(line)["question_id"],
            "model_id": "mine",
            "choices": [{"index": 0, "turns": ["I would say so.", "And that."]}],
        }
        for line in lines
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers), encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(place: Path, server: LlamaCppServer) -> Run:
    """Run `gshf-release` as a user does, with a cache of its own and a judge at the server."""

    def call(*arguments: object, judge: dict[str, Any] | None = None) -> Outcome:
        settings = [*OVERRIDES, f"endpoint.address={server.address}"]
        settings += [f"{key}={value}" for key, value in (judge or {}).items()]
        command = [sys.executable, "-m", "gshf_release", *map(str, arguments)]
        command += [word for setting in settings for word in ("--set-judge", setting)]
        own = {"GSHF_CACHE": str(place / "cache"), "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command, cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=1800, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def compare(run: Run, data: Path) -> Run:
    """Judge the answers to AlpacaEval's first questions."""

    def call(folder: str, **judge: Any) -> Outcome:
        words = ["--benchmark", "alpaca_eval_2", "--data", data, "--allow-unverified-data", "--limit", ASKED]
        words += ["--judge", "openai-compatible-alpaca-eval", "--outputs", "mine.json", "--baseline", "theirs.json"]
        return run("eval", "mine", *words, "--run", folder, judge=judge)

    return call


def annotations(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("*/alpaca_eval_2/*/judgments/annotations.json")
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_it_compares_answers_by_its_log_probabilities_and_is_asked_once(
    compare: Run, place: Path, server: LlamaCppServer
) -> None:
    settings = {"parameters.top_logprobs": 20, "parameters.max_tokens": 1, "letter_share": 1e-9}
    outcome = compare("run", **settings)
    assert outcome.code == 0, outcome.err
    assert f"{ASKED} judgments to ask smollm2 for, 0 in the cache" in outcome.err
    assert "price not known" in outcome.err
    rows = annotations(place / "run")
    assert len(rows) == ASKED
    for row in rows:
        assert 1 < row["preference"] < 2, "weighted, and not the word alone"
        assert "note" not in row
        assert row["annotator"] == "openai-compatible-alpaca-eval/smollm2"
    cells = read_cells(place / "run/results.json")
    rate, controlled = (find(cells, metric=name) for name in ("win rate", "LC win rate"))
    assert rate is not None
    assert controlled is not None
    assert rate.value == pytest.approx(100 * sum(row["preference"] - 1 for row in rows) / ASKED)
    assert (rate.n, rate.judge, rate.baseline) == (ASKED, "openai-compatible-alpaca-eval/smollm2", "theirs")
    assert "another judge" in controlled.note, "not the official number"
    assert "another baseline" in controlled.note
    again = compare("again", **settings)
    assert again.code == 0, again.err
    assert "judgments to ask" not in again.err, "all of them were in the cache"
    assert annotations(place / "again") == rows


def test_without_log_probabilities_the_letter_that_it_writes_counts_and_is_labelled(
    compare: Run, place: Path, smollm2_tokenizer: Any
) -> None:
    letters = [smollm2_tokenizer.encode(letter, add_special_tokens=False) for letter in "mM"]
    assert [len(ids) for ids in letters] == [1, 1]
    bias = {str(ids[0]): 100 for ids in letters}  # left alone, so small a model begins with another word
    settings = {"parameters.top_logprobs": "null", "parameters.max_tokens": 1}
    outcome = compare("run", **settings, **{"parameters.extra": json.dumps({"logit_bias": bias})})
    assert outcome.code == 0, outcome.err
    rows = annotations(place / "run")
    assert {row["preference"] for row in rows} <= {1.0, 2.0}
    assert all("log-prob" in row["note"] for row in rows)
    unbiased = compare("unbiased", **settings)
    assert unbiased.code == 1
    assert f"{ASKED} of {ASKED} judgments of AlpacaEval 2 of mine" in unbiased.err
    assert "cut by its limit of tokens before a verdict" in unbiased.err


def test_it_rates_answers_of_mt_bench_and_what_is_no_rating_is_counted(run: Run, place: Path, data: Path) -> None:
    words = ["--benchmark", "mt_bench", "--data", data, "--limit", 2, "--outputs", "mine.jsonl", "--run", "run"]
    words += ["--judge", "openai-compatible-mt-bench-single"]
    free = run("eval", "mine", *words, judge={"parameters.max_tokens": 16, "failed_share": 0.99})
    assert free.code == 1
    assert "4 of 4 judgments of MT-Bench of mine" in free.err
    assert "cut by its limit of tokens before a verdict" in free.err
    extra = json.dumps({"grammar": 'root ::= "Rating: " ("[[" [1-9] "]]" | "none")'})
    outcome = run("eval", "mine", *words, judge={"parameters.extra": extra, "failed_share": 0.99})
    assert outcome.code == 0, outcome.err
    (file,) = (place / "run").glob("*/mt_bench/*/judgments/single.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    assert all(row["judgment"].startswith("Rating: ") and row["judge"][0] == "smollm2" for row in rows)
    cells = read_cells(place / "run/results.json")
    failed, average = (find(cells, metric=name) for name in ("failed judgments", "average"))
    assert failed is not None
    assert average is not None
    assert (failed.value, failed.n) == (sum(row["score"] == -1 for row in rows), 4)
    assert average.n == 4 - failed.value
    assert average.judge == "openai-compatible-mt-bench-single/smollm2+corrected"


def test_a_calibration_is_refused_unless_its_win_rates_follow_the_official_ones(run: Run, place: Path) -> None:
    models = official_rows(20, {"weak": 0.05, "fair": 0.3, "best": 0.65})
    for row in (
        row for rows in models.values() for row in rows
    ):  # short, for sixty judgments are many for such a server
        row |= {"output_1": "Something short.", "output_2": f"{row['generator_2']}, to be sure."}
    words = [word for file in write(models, place / "official") for word in ("--annotations", file)]
    judge = {"parameters.top_logprobs": 20, "parameters.max_tokens": 1, "letter_share": 1e-9}
    outcome = run("calibrate", "openai-compatible-alpaca-eval", *words, "--json", judge=judge)
    document = json.loads(outcome.out)
    assert document["judge"] == "openai-compatible-alpaca-eval/smollm2"
    saved = list((place / "cache/calibrations").glob("*.json"))
    if document["refused"]:  # what so small a judge deserves
        assert outcome.code == 1
        assert "it says nothing about the official win rate" in outcome.err
        assert saved == []
    else:
        assert outcome.code == 0, outcome.err
        assert document["slope"]["low"] > 0
        assert len(saved) == 1
