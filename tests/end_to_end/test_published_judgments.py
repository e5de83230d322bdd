"""The published judgments, replayed by a server, give the published numbers; and the original programs read what we write."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.results import Cell, find, read_cells
from tests.benchmarks.length_control import fake_hub
from tests.conftest import Outcome
from tests.servers.judge import KEY, Fault, JudgeServer, replay, stored_judgments

Command = Callable[..., Outcome]
MODEL = "alpaca-7b"
MT_MODEL, FIRST, SECOND, AVERAGE = "mamba_0_875_dpo_ep1", 6.95625, 5.81875, 6.3875
"""MT-Bench's published row: https://github.com/jxiw/MambaInLlama."""


@pytest.fixture(scope="module")
def data(test_data: Path) -> Path:
    if not test_data.is_dir():
        pytest.skip(f"no published judgments at {test_data}; set GSHF_TEST_DATA")
    return test_data


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[JudgeServer]:
    with JudgeServer(replay(stored_judgments(data))) as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture
def judged(
    command: Command, server: JudgeServer, data: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Judge existing answers; the judgments' cache and the runs outlive one test."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GSHF_CACHE", str(place / "cache"))

    def call(name: str, outputs: Path, benchmark: str, *options: object) -> Outcome:
        words = ["--outputs", outputs, "--benchmark", benchmark, "--run", place / name, "--data", data]
        address = ["--set-judge", f"endpoint.address={server.address}"]
        return command("eval", name, *words, *address, "--allow-unverified-data", *options)

    return call


@pytest.fixture
def alpaca(judged: Callable[..., Outcome], data: Path, place: Path, server: JudgeServer) -> Path:
    """Return the run in which the stored answers of MODEL were judged, with some faults on the way."""
    run = place / MODEL
    if not (run / "results.json").exists():
        rows = json.loads(gzip.decompress((data / f"alpaca_eval/annotations/{MODEL}.json.gz").read_bytes()))
        outputs = [
            {
                "dataset": row["dataset"],
                "instruction": row["instruction"],
                "output": row["output_2"],
                "generator": MODEL,
            }
            for row in rows
        ]
        (place / "model_outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
        for number, fault in ((3, Fault("429", retry_after="0")), (20, Fault("truncated")), (40, Fault("empty"))):
            server.faults[server.numbers + number] = fault
        outcome = judged(MODEL, place / "model_outputs.json", "alpaca_eval_2")
        assert outcome.code == 0, outcome.err
    return run


@pytest.fixture
def mt(judged: Callable[..., Outcome], data: Path, place: Path) -> Path:
    """Return the run in which the stored answers of MT_MODEL were judged."""
    run = place / "mt"
    if not (run / "results.json").exists():
        outcome = judged("mt", data / f"mt_bench/model_answer/{MT_MODEL}.jsonl", "mt_bench")
        assert outcome.code == 0, outcome.err
    return run


def cell(run: Path, metric: str) -> Cell:
    found = find(read_cells(run / "results.json"), metric=metric)
    assert found is not None
    return found


def published(data: Path) -> dict[str, str]:
    with (data / "alpaca_eval/published_all.csv").open(encoding="utf-8", newline="") as stream:
        return next(row for row in csv.DictReader(stream) if row["model"] == MODEL)


def test_alpaca_evals_published_numbers_come_out(alpaca: Path, data: Path) -> None:
    row, rate, controlled = published(data), cell(alpaca, "win rate"), cell(alpaca, "LC win rate")
    assert rate.judge == "weighted_alpaca_eval_gpt4_turbo"
    assert rate.value == pytest.approx(float(row["win_rate"]), abs=1e-9)
    assert rate.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-9)
    assert cell(alpaca, "length").value == int(row["avg_length"])
    assert controlled.note.startswith("length_controlled_v1; ")
    bounds = re.search(r"([\d.]+) to ([\d.]+) over", controlled.note)
    assert bounds is not None
    assert float(bounds[1]) - 0.005 <= float(row["lc"]) <= float(bounds[2]) + 0.005
    assert cell(alpaca, "failed judgments").value == 0.0


def test_no_judgment_was_paid_twice(alpaca: Path, server: JudgeServer) -> None:
    assert sum(count > 1 for count in server.answered.values()) <= 2  # those whose answer was cut or empty


def test_mt_benchs_published_numbers_come_out(mt: Path) -> None:
    found = {metric: cell(mt, metric).value for metric in ("first turn", "second turn", "average")}
    assert found == {"first turn": FIRST, "second turn": SECOND, "average": AVERAGE}
    assert cell(mt, "average").judge == "mt_bench_gpt4_single"


def test_fastchats_show_result_reads_our_judgments(mt: Path) -> None:
    (file,) = mt.glob("*/mt_bench/*/judgments/single.jsonl")
    words = [sys.executable, "-m", "fastchat.llm_judge.show_result", "--input-file", file, "--mode", "single"]
    shown = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout
    values = [float(value) for value in re.findall(rf"^{MT_MODEL}\s.*?([\d.]+)$", shown, re.MULTILINE)]
    assert values == [FIRST, SECOND, AVERAGE]


@pytest.mark.slow
def test_the_alpaca_eval_command_reads_our_outputs_and_judgments(alpaca: Path, data: Path, tmp_path: Path) -> None:
    (annotations,) = alpaca.glob("*/alpaca_eval_2/*/judgments/annotations.json")
    cached = tmp_path / "cache.json"
    cached.write_bytes(annotations.read_bytes())
    words: list[Any] = [sys.executable, "-m", "alpaca_eval.main", "evaluate"]
    words += ["--model_outputs", alpaca / MODEL / "alpaca_eval_2/answers/model_outputs.json"]
    words += ["--reference_outputs", data / "alpaca_eval/reference_outputs_gpt4_1106_preview.json"]
    words += ["--annotators_config", "weighted_alpaca_eval_gpt4_turbo", "--metric_kwargs", "{'save_weights_dir': None}"]
    words += ["--caching_path", cached, "--output_path", tmp_path / "out", "--name", "ours"]
    words += ["--precomputed_leaderboard", "None", "--is_cache_leaderboard", "False"]
    fake_hub(data / "alpaca_eval", tmp_path)  # the length-controlled rate reads the gamed baseline from there
    nowhere = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "HF_HUB_OFFLINE": "1"}
    nowhere |= {"HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, env=os.environ | nowhere
    )
    assert result.returncode == 0, result.stderr[-2000:]
    with next((tmp_path / "out").rglob("leaderboard.csv")).open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["win_rate"]) == pytest.approx(float(published(data)["win_rate"]), abs=1e-9)
    assert int(row["n_total"]) == 805
    assert float(row["length_controlled_winrate"]) == pytest.approx(cell(alpaca, "LC win rate").value, abs=1e-4)
