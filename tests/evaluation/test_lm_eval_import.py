"""Results of lm-evaluation-harness as cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.results import read_cells, write_cells
from gshf_release.errors import DataError
from gshf_release.evaluation.lm_eval_import import cells_of_results, read_lm_eval_results

DOCUMENT: dict[str, Any] = {
    "results": {
        "quiz": {
            "alias": "quiz",
            "acc,none": 0.5,
            "acc_stderr,none": 0.05,
            "acc_norm,none": 0.6,
            "acc_norm_stderr,none": "N/A",
        },
        "sums": {"alias": " - sums", "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1},
    },
    "n-shot": {"quiz": 25, "sums": 5},
    "n-samples": {"quiz": {"original": 100, "effective": 100}, "sums": {"original": 50, "effective": 20}},
}


def test_every_metric_of_every_task_is_a_cell_with_its_error() -> None:
    found = {cell.metric: cell for cell in cells_of_results(DOCUMENT, "iteration-2", "imports/x/results.json")}
    assert set(found) == {"quiz: acc", "quiz: acc_norm", "sums: exact_match (strict)"}
    accuracy = found["quiz: acc"]
    assert (accuracy.value, accuracy.standard_error, accuracy.n, accuracy.decoding) == (0.5, 0.05, 100, "25-shot")
    assert found["quiz: acc_norm"].standard_error is None
    assert (found["sums: exact_match (strict)"].n, found["sums: exact_match (strict)"].row) == (20, "iteration-2")


@pytest.mark.parametrize(
    "more",
    [
        {"n-samples": "", "n-shot": [1]},
        {"n-samples": {"quiz": 3}, "n-shot": {"quiz": "many"}},
        {"n-samples": {"quiz": {"effective": {"a": None}}}},
        {"n-samples": {"quiz": {"effective": -1}}},
    ],
)
def test_what_a_file_says_of_samples_and_shots_is_left_out_where_it_is_none(more: dict[str, Any]) -> None:
    (found,) = cells_of_results({"results": {"quiz": {"acc,none": 0.5}}} | more, "base", "x")
    assert (found.value, found.n, found.decoding) == (0.5, None, "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(json.dumps(DOCUMENT).encode(encoding))
    assert cells_of_results(read_lm_eval_results(path), "base", "x") == cells_of_results(DOCUMENT, "base", "x")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_an_empty_cell_with_a_note(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    entry = f'{{"acc,none": {text}, "acc_stderr,none": 0.1, "f1,none": 0.5, "f1_stderr,none": {text}}}'
    path.write_text(f'{{"results": {{"quiz": {entry}}}}}', encoding="utf-8")
    found = cells_of_results(read_lm_eval_results(path), "base", "x")
    assert [(one.value, one.standard_error) for one in found] == [(None, None), (0.5, None)]
    assert "no number" in found[0].note
    write_cells(found, tmp_path / "cells.json")
    assert read_cells(tmp_path / "cells.json") == found


@pytest.mark.parametrize("content", ["{}", "[1]", '{"results": {}}', '{"results": {"a": 1}}', "no JSON"])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="no result file of lm-evaluation-harness"):
        read_lm_eval_results(path)


def test_a_result_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    assert read_lm_eval_results(path) == DOCUMENT


def test_a_file_of_before_version_0_4_is_read() -> None:
    entry = {"acc": 0.5, "acc_stderr": 0.01, "acc_norm": 0.6, "acc_norm_stderr": 0.02, "alias": "quiz"}
    found = cells_of_results({"results": {"quiz": entry}, "n-shot": {"quiz": 0}}, "base", "x")
    assert [(cell.metric, cell.value, cell.standard_error, cell.decoding) for cell in found] == [
        ("quiz: acc", 0.5, 0.01, "0-shot"),
        ("quiz: acc_norm", 0.6, 0.02, "0-shot"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"results": {"quiz": {"alias": "quiz"}}}, "holds no metric"),
        ({"results": {"quiz": {}}}, "holds no metric"),
        ({"config_general": {}, "results": {"lighteval|gsm8k|5": {"qem": 0.3}}}, "is a result file of lighteval"),
    ],
)
def test_a_file_of_which_nothing_would_be_imported_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_lm_eval_results(path)
