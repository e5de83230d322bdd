"""Figures: equal cells give equal bytes, gaps are gaps, and the text beside the figure names its numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gshf_release
from gshf_release.data.results import Cell, read_cells
from gshf_release.errors import RunError
from gshf_release.report.figures import learning_curve
from gshf_release.run.directory import RunDirectory


def test_equal_cells_give_equal_bytes(finished: RunDirectory, tmp_path: Path) -> None:
    cells = read_cells(finished.path / "results.json")
    texts = {learning_curve(cells, tmp_path / f"{number}.png") for number in (1, 2)}
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    (text,) = texts
    assert text.startswith("Gain of iteration-2 over the base at greedy decoding: training reward ")


def test_drawing_leaves_the_callers_settings_alone(finished: RunDirectory, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    learning_curve(read_cells(finished.path / "results.json"), tmp_path / "a.png")
    changed = {key for key, value in mpl.rcParams.items() if before[key] != value}
    assert changed <= {"backend"}


def test_settings_of_the_folder_change_nothing(finished: RunDirectory, tmp_path: Path) -> None:
    """Start a Python of its own: matplotlib reads the current folder's file when it is imported."""
    (tmp_path / "matplotlibrc").write_text(
        "backend: module://nowhere\ntext.usetex: true\nfont.size: 40\n", encoding="utf-8"
    )
    call = "from gshf_release.report.figures import *; from gshf_release.data.results import read_cells; "
    call += f"learning_curve(read_cells(Path({str(finished.path / 'results.json')!r})), Path('here.png'))"
    variables = os.environ | {"PYTHONPATH": str(Path(gshf_release.__file__).parents[1])}
    subprocess.run([sys.executable, "-P", "-c", call], cwd=tmp_path, env=variables, check=True)
    learning_curve(read_cells(finished.path / "results.json"), tmp_path / "usual.png")
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "usual.png").read_bytes()


def test_missing_cells_are_gaps(tmp_path: Path) -> None:
    cells = [Cell(table="test", row=row, metric="score", value=1.0) for row in ("base", "iteration-1")]
    learning_curve(cells, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_run_that_was_not_evaluated_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results on the test prompts to draw"):
        learning_curve([Cell(table="eval", row="base", metric="score", value=1.0)], tmp_path / "a.png")
