"""Published numbers of AlpacaEval 2 from the published judgments, and the library itself as the oracle."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gshf_release.evaluation.alpaca_eval import annotations, data
from gshf_release.evaluation.alpaca_eval.annotations import Annotation
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData
from gshf_release.evaluation.alpaca_eval.scoring import score

pytestmark = pytest.mark.slow
MODELS = (
    "FuseChat-Llama-3.2-1B-Instruct",
    "OpenHermes-2.5-Mistral-7B",
    "alpaca-7b",
    "alpaca-7b_verbose",
    "claude-2",
    "gemma-7b-it",
    "phi-2",
    "vicuna-7b-v1.5",
)
INCOMPLETE = {"alpaca-7b_verbose", "phi-2"}


@pytest.fixture(scope="module")
def folder(test_data: Path) -> Path:
    if not (test_data / "alpaca_eval").is_dir():
        pytest.skip(f"no AlpacaEval data at {test_data}; set GSHF_TEST_DATA")
    return test_data / "alpaca_eval"


@pytest.fixture(scope="module")
def borrowed(folder: Path) -> AlpacaEvalData:
    return data.load(folder, allow_unverified=True)


@pytest.fixture(scope="module")
def published(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "published_all.csv").open(encoding="utf-8") as stream:
        return {row["model"]: row for row in csv.DictReader(stream)}


def read(folder: Path, model: str) -> list[Annotation]:
    return annotations.read(folder / "annotations" / f"{model}.json.gz")


@pytest.mark.parametrize("model", MODELS)
def test_published_numbers_come_out(
    folder: Path, borrowed: AlpacaEvalData, published: dict[str, dict[str, str]], model: str
) -> None:
    row = published[model]
    found = score(read(folder, model), borrowed, as_published=True)
    assert found.win_rate == pytest.approx(float(row["win_rate"]), abs=1e-9)
    assert found.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-9)
    assert found.discrete_win_rate == pytest.approx(float(row["discrete_win_rate"]), abs=1e-9)
    counts = (found.n_total, found.n_wins, found.n_wins_base, found.n_draws, found.avg_length)
    names = ("n_total", "n_wins", "n_wins_base", "n_draws", "avg_length")
    assert counts == tuple(int(float(row[name])) for name in names)
    assert found.lc_low - 1e-6 <= float(row["lc"]) <= found.lc_high + 1e-6
    assert found.lc_high - found.lc_low <= 0.16
    assert found.lc_low <= found.length_controlled_winrate <= found.lc_high
    assert (found.lc_difference == 0) == (model not in INCOMPLETE)
    assert found.lc_label == "length_controlled_v1"
    assert found.n_missing == 805 - found.n_total


def test_an_incomplete_file_is_shifted_by_the_position_rule(folder: Path, borrowed: AlpacaEvalData) -> None:
    found = score(read(folder, "phi-2"), borrowed)
    assert found.lc_rule == "instruction"
    assert found.length_controlled_winrate < found.lc_by_position - 0.4
    assert found.lc_by_position_low - 1e-6 <= 4.398682270855682 <= found.lc_by_position_high + 1e-6


def test_the_first_four_hundred_rows_are_not_reported_as_the_benchmark(folder: Path, borrowed: AlpacaEvalData) -> None:
    found = score(read(folder, "claude-2")[:400], borrowed)
    assert found.length_controlled_winrate is None
    assert (found.n_total, found.n_missing, found.lc_label) == (400, 405, "none")
    assert found.lc_reason == "400 of 805 instructions are judged, a length-controlled win rate needs 403"
    assert "405 of 805 instructions are missing." in found.warnings


def test_a_complete_file_needs_no_evaluation_set(folder: Path, borrowed: AlpacaEvalData) -> None:
    instructions = [row.instruction for row in read(folder, "alpaca-7b")]
    assert tuple(instructions) == borrowed.instructions
    assert data.is_complete_in_order(instructions)
    assert not data.is_complete_in_order(instructions[::-1])


ORACLE = """
import gzip, json, sys
import pandas as pd
from alpaca_eval.metrics import glm_winrate
folder = sys.argv[1]
glm_winrate.hf_hub_download = lambda **_: f"{folder}/df_gamed.csv"
found = {}
for model in ("claude-2", "phi-2"):
    with gzip.open(f"{folder}/annotations/{model}.json.gz") as stream:
        rows = json.load(stream)
    found[model] = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
rows = sorted(rows, key=lambda row: row["instruction"])
found["hybrid"] = glm_winrate.get_length_controlled_winrate(
    rows, glm_name="length_controlled_minimal", save_weights_dir=None
)
print(json.dumps({name: {key: float(value) for key, value in row.items()} for name, row in found.items()}))
"""


@pytest.fixture(scope="module")
def oracle(folder: Path) -> dict[str, dict[str, Any]]:
    """What alpaca_eval's own function says."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", ORACLE, folder], capture_output=True, text=True, env=environment, check=False
    )
    if ran.returncode and "ModuleNotFoundError" in ran.stderr:
        pytest.skip(f"alpaca_eval cannot be imported: {ran.stderr.splitlines()[-1]}")
    assert ran.returncode == 0, ran.stderr
    result: dict[str, dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return result


def test_the_library_says_the_same(folder: Path, borrowed: AlpacaEvalData, oracle: dict[str, dict[str, Any]]) -> None:
    for model in ("claude-2", "phi-2"):
        found = score(read(folder, model), borrowed, as_published=True)
        for name in ("win_rate", "standard_error", "discrete_win_rate", "n_total", "n_wins", "n_wins_base", "n_draws"):
            assert getattr(found, name) == pytest.approx(oracle[model][name], abs=1e-9)
        assert found.length_controlled_winrate == pytest.approx(oracle[model]["length_controlled_winrate"], abs=1e-6)
        assert found.lc_standard_error == pytest.approx(oracle[model]["lc_standard_error"], abs=1e-6)


def test_a_hybrid_is_the_library_s_minimal_fit(folder: Path, oracle: dict[str, dict[str, Any]]) -> None:
    from dataclasses import replace

    rows = [replace(row, annotator="another") for row in read(folder, "phi-2")]
    found = score(rows, AlpacaEvalData())
    assert found.length_controlled_winrate == pytest.approx(oracle["hybrid"]["length_controlled_winrate"], abs=1e-6)
