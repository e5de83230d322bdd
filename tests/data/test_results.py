"""Cells: written, read, selected and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from gshf_release.data.results import Cell, cell, find, read_cells, rows_of, select, shown, write_cells
from gshf_release.data.statistics import Estimate
from gshf_release.errors import DataError

BASE = Cell(
    table="test", row="base", metric="score", value=1.25, standard_error=0.5, n=4, decoding="T=0.7", judge="reward"
)
TRAINED = Cell(table="test", row="iteration-1", metric="score", value=2.0, judge="reward")


def test_cells_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a.json"
    write_cells([BASE, TRAINED, Cell(table="t", row="r", metric="m", value=None)], path)
    assert read_cells(path) == [BASE, TRAINED, Cell(table="t", row="r", metric="m", value=None)]


def test_equal_cells_give_equal_bytes(tmp_path: Path) -> None:
    write_cells([BASE], tmp_path / "a.json")
    write_cells(read_cells(tmp_path / "a.json"), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_written(value: float, tmp_path: Path) -> None:
    for bad in (BASE.model_copy(update={"value": value}), BASE.model_copy(update={"standard_error": value})):
        with pytest.raises(DataError, match=r"test, base, score: .* is not a finite number"):
            write_cells([bad], tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_cell_takes_over_an_estimate() -> None:
    made = cell(Estimate(2.0, 0.1, 7), table="t", row="r", metric="m")
    assert (made.value, made.standard_error, made.n) == (2.0, 0.1, 7)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        Cell(table="t", row="r", metric="m", value=1, sigma=3)  # type: ignore[call-arg]


def test_reported_and_measured_cells_differ_in_their_key() -> None:
    assert BASE.key != BASE.model_copy(update={"origin": "reported"}).key


def test_gains_over_two_baselines_differ_in_their_key() -> None:
    assert BASE.key != BASE.model_copy(update={"baseline": "base at T=0.3"}).key


@pytest.mark.parametrize("field", ["value", "standard_error"])
def test_a_file_with_what_is_no_number_is_damaged(field: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    entry = {"table": "t", "row": "r", "metric": "m", "value": 1.0} | {field: float("inf")}
    path.write_text(json.dumps({"cells": [entry]}), encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_cells(path)


def test_select_and_find() -> None:
    assert select([BASE, TRAINED], judge="reward", row="base") == [BASE]
    assert find([BASE, TRAINED], row="iteration-1") == TRAINED
    assert find([BASE], row="nobody") is None


def test_rows_come_in_order_of_first_appearance() -> None:
    assert rows_of([TRAINED, BASE, TRAINED]) == ["iteration-1", "base"]


def test_a_cell_is_shown_with_its_standard_error() -> None:
    assert shown(BASE) == "1.25 ± 0.50"
    assert shown(TRAINED, digits=1) == "2.0"
    assert shown(None) == "–"
    assert shown(Cell(table="t", row="r", metric="m", value=None)) == "–"
