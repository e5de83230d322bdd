"""A judge behind a real server: asked by AlpacaEval 2's protocol, it gives the calibration that its opinions deserve."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release.evaluation.calibration import calibrate, load
from gshf_release.evaluation.calibration.replay import Comparison, read_official
from tests.conftest import Outcome
from tests.evaluation.calibration.judged import StubJudge, official_rows, write
from tests.servers.chat import ChatServer

ROWS = official_rows(80, {"weak": 0.1, "fair": 0.35, "good": 0.5, "best": 0.7})
KNOWN = {(row["instruction"], row["output_2"]): row for own in ROWS.values() for row in own}
STUB = StubJudge(ROWS, agreement=0.9)
CONTEXT = "openai-compatible-alpaca-eval"


def answer(body: dict[str, Any]) -> str:
    """Return `m` if the stub prefers the answer that is shown first, else `M`."""
    text = " ".join(message["content"] for message in body["messages"])
    instruction = re.search(r"made-up task \d+", text)
    shown = re.search(rf"({'|'.join(ROWS)}) m+", text)
    baseline = re.search(r"b{50,}", text)
    assert instruction
    assert shown
    assert baseline
    row = KNOWN[instruction.group(), shown.group()]
    (verdict,) = STUB.judge([Comparison(row["instruction"], "", row["output_2"], "", row["generator_2"])])
    prefers_model = verdict.preference == 1
    return "m" if prefers_model == (shown.start() < baseline.start()) else "M"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[object]]:
    """Return the command's arguments for a server, with a cache of the test's own."""
    if importlib.util.find_spec("alpaca_eval") is None:
        pytest.skip("the package alpaca-eval is not installed")
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    files = [part for path in write(ROWS, tmp_path / "official") for part in ("--annotations", path)]

    def arguments(address: str) -> list[object]:
        settings = ("--set", "model=tiny", "--set", f"endpoint.address={address}")
        return ["calibrate", CONTEXT, *files, *settings, "--sample", 60, "--json"]

    return arguments


def test_a_judge_behind_a_server_is_calibrated(
    command: Callable[..., Outcome], call: Callable[[str], list[object]], tmp_path: Path
) -> None:
    with ChatServer(answer, key=None) as server:
        outcome = command(*call(server.address))
        asked = len(server.received)
        again = command(*call(server.address))
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    expected = calibrate(read_official(sorted((tmp_path / "official").glob("*"))), STUB, sample_size=60)
    assert {entry["model"]: entry["substitute"] for entry in document["models"]} == pytest.approx(
        {entry.model: entry.substitute for entry in expected.models}
    )
    assert document["agreement"]["position_bias"] == pytest.approx(expected.agreement.position_bias._asdict())
    assert asked == 4 * 60
    assert len(server.received) == asked  # nothing is asked twice
    assert json.loads(again.out) == document
    assert load(document["judge"]).document() == document  # kept in the cache under the judge's name


def test_a_judge_of_another_benchmark_is_refused(command: Callable[..., Outcome], call: Callable[[str], Any]) -> None:
    arguments = [
        "openai-compatible-mt-bench-single" if part == CONTEXT else part for part in call("http://localhost:1")
    ]
    outcome = command(*arguments)
    assert outcome.code == 1
    assert "judges mt_bench_single; calibration replays AlpacaEval 2" in outcome.line
