"""From logits to measured tokens to cells, with values computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, find
from gshf_release.errors import DataError
from gshf_release.release.quantization import calibration_text, command, losses
from gshf_release.release.quantization.logits import compare, log_softmax, record, scored

SEQUENCES = [[0, 1, 1], [1, 0]]


def constant(*probabilities: float) -> Any:
    """Return logits that are the same at every position."""
    row = np.log(np.asarray(probabilities))
    return lambda ids: np.tile(row, (len(ids), 1))


def tokens(path: Path, reference: Any, other: Any, sequences: Sequence[Sequence[int]] = SEQUENCES) -> Any:
    record(reference, sequences, path / "r.f32", 2)
    return compare(other, sequences, path / "r.f32", 2)


def test_every_token_but_the_first_of_a_sequence_is_scored(tmp_path: Path) -> None:
    found = tokens(tmp_path, constant(0.5, 0.5), constant(0.5, 0.5))
    assert scored(SEQUENCES) == len(found) == 3
    assert found[:, 3].tolist() == [0, 0, 1]


def test_likelihood_divergence_and_top_token_are_those_of_two_coins(tmp_path: Path) -> None:
    found = tokens(tmp_path, constant(0.75, 0.25), constant(0.4, 0.6))
    assert found[:, 0] == pytest.approx([-math.log(0.6), -math.log(0.6), -math.log(0.4)])
    divergence = 0.75 * math.log(0.75 / 0.4) + 0.25 * math.log(0.25 / 0.6)
    assert found[:, 1] == pytest.approx([divergence] * 3, rel=1e-6)
    assert found[:, 2].tolist() == [0, 0, 0]


def test_a_model_against_itself_loses_nothing(tmp_path: Path) -> None:
    found = tokens(tmp_path, constant(0.7, 0.3), constant(0.7, 0.3))
    assert found[:, 1] == pytest.approx(0, abs=1e-7)
    assert found[:, 2].tolist() == [1, 1, 1]


def test_logits_that_are_computed_past_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    padded = constant(0.6, 0.4, 1e-9)
    assert tokens(tmp_path, constant(0.6, 0.4), padded)[:, 1] == pytest.approx(0, abs=1e-7)


@settings(deadline=None)
@given(st.lists(st.floats(-80, 80), min_size=1, max_size=6), st.floats(-1e3, 1e3))
def test_log_softmax_sums_to_one_and_ignores_a_shift(values: list[float], shift: float) -> None:
    row = np.asarray([values])
    assert float(np.exp(log_softmax(row)).sum()) == pytest.approx(1)
    assert log_softmax(row + shift) == pytest.approx(log_softmax(row), abs=1e-9)


def measured(folder: Path, rows: Any, **changes: Any) -> Path:
    """Write a folder of measurements with one file."""
    np.save(folder / "Q4_K_M.npy", np.asarray(rows, dtype=np.float64))
    file = {
        "row": "Q4_K_M",
        "size": 6_000_000,
        "parameters": 10_000_000,
        "made_with": "llama.cpp",
        "engine": "llama.cpp",
        "own": False,
        "measured": {"BF16": "Q4_K_M.npy"},
        "prompts": {"equal": 3, "n": 4},
    }
    text = {"description": "3 tokens of a text", "sha256": "ab" * 32}
    (folder / losses.DOCUMENT).write_text(json.dumps({"text": text, "files": [file | changes]}), encoding="utf-8")
    return folder


ROWS = [[1.0, 0.2, 1, 0], [2.0, 0.4, 0, 0], [3.0, 0.6, 1, 1]]


def test_cells_are_size_bits_perplexity_and_distances(tmp_path: Path) -> None:
    cells = losses.cells(measured(tmp_path, ROWS), "place")
    values = {entry.metric: entry.value for entry in cells}
    assert values == pytest.approx(
        {
            losses.SIZE: 6.0,
            losses.BITS: 4.8,
            losses.PROMPTS: 75.0,
            losses.PERPLEXITY: math.exp(2),
            losses.KL: 0.4,
            losses.KL_TAIL: 0.5996,
            losses.SAME_TOP: 200 / 3,
        }
    )
    assert {entry.n for entry in cells if entry.metric == losses.KL} == {3}
    kl = find(cells, metric=losses.KL)
    assert kl is not None
    assert (kl.artefact, kl.baseline, kl.unit) == ("place/Q4_K_M.npy", "BF16", "nats")
    assert "sha256 abababababababab" in kl.note


def test_standard_errors_are_clustered_by_sequence(tmp_path: Path) -> None:
    kl = find(losses.cells(measured(tmp_path, ROWS), "p"), metric=losses.KL)
    residuals = [(0.2 - 0.4) + (0.4 - 0.4), 0.6 - 0.4]
    assert kl is not None
    assert kl.standard_error == pytest.approx(math.sqrt(2 * sum(value**2 for value in residuals)) / 3)


def test_the_reference_itself_has_a_perplexity_and_no_distance(tmp_path: Path) -> None:
    metrics = [entry.metric for entry in losses.cells(measured(tmp_path, ROWS, own=True), "p")]
    assert losses.PERPLEXITY in metrics
    assert losses.KL not in metrics


def test_the_difference_between_engines_stands_beside_the_loss(tmp_path: Path) -> None:
    folder = measured(tmp_path, ROWS, own=True, measured={losses.IMPLEMENTATION: "Q4_K_M.npy"})
    found = [entry for entry in losses.cells(folder, "p") if entry.baseline == losses.IMPLEMENTATION]
    assert {entry.metric for entry in found} == {losses.KL, losses.KL_TAIL, losses.SAME_TOP}


def sample(prompt: str, ids: list[int], answer: list[int], index: int = 0) -> Sample:
    return Sample(prompt, index, "greedy", 0.0, ids, answer, "", "stop", "")


def test_a_text_is_the_greedy_conversations_of_a_role_up_to_a_number_of_tokens() -> None:
    rows = [sample("b", [4, 5], [6]), sample("a", [1], [2, 3]), sample("a", [1], [9], 1), sample("c", [7], [8])]
    text = calibration_text.of_samples(rows, role="a role", tokens=5)
    assert text.sequences == [[1, 2, 3], [4, 5]]
    assert text.description == "5 tokens of prompts and answers of a role"


def test_the_same_tokens_have_the_same_sha256_and_others_another() -> None:
    first, same, other = (
        calibration_text.of_samples([sample("a", [1], ids)], role=role)
        for ids, role in (([2], "x"), ([2], "y"), ([3], "x"))
    )
    assert first.sha256 == same.sha256 != other.sha256


def test_long_conversations_are_cut_and_none_is_an_error() -> None:
    text = calibration_text.of_samples([sample("a", [1], [2] * 600)], role="x")
    assert [len(ids) for ids in text.sequences] == [calibration_text.LONGEST]
    with pytest.raises(DataError, match="no text to measure on"):
        calibration_text.of_samples([], role="x")


def test_calibration_is_in_an_order_that_the_seed_decides() -> None:
    rows = [sample(str(number), [number], [number]) for number in range(30)]
    first, again, other = (calibration_text.calibration(rows, role="x", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.sequences != other.sequences
    assert sorted(first.sequences) == sorted(other.sequences)


def test_the_table_says_which_files_are_not_wholly_of_their_type() -> None:
    made = [
        ("Q8_0", "gguf"),
        ("Q5_K_M", "llama.cpp; 181 matrices fell back to Q5_1, Q8_0: 256 does not divide their rows"),
    ]
    cells = [
        Cell(table="GGUF", row=row, metric=losses.SIZE, value=1.0, unit="MB", artefact="GGUF/measured.json", note=note)
        for row, note in made
    ]
    (table,) = command.tables(cells)
    assert [note for note in table.notes if "fell back" in note] == [f"Q5_K_M: {made[1][1]}"]
