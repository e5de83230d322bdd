"""Figures: equal cells give equal bytes, gaps are gaps, and the text beside the figure names its numbers."""

from __future__ import annotations

from pathlib import Path

from gshf_release.plots import learning_curve
from gshf_release.results import Cell, read_cells
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


def test_missing_cells_are_gaps(tmp_path: Path) -> None:
    cells = [Cell(table="test", row=row, metric="score", value=1.0) for row in ("base", "iteration-1")]
    learning_curve(cells, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
