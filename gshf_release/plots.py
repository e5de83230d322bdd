"""Figures, drawn once and used by cards and documents. Equal cells give equal bytes: fixed fonts, no dates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.report.tables import iterations_of
from gshf_release.results import Cell, find, select

COLOURS = {"reward": "#1f6f8b", "second-scorer": "#c8553d"}
NAMES = {"reward": "training reward", "second-scorer": "second scorer (never trained on)"}


def learning_curve(cells: Sequence[Cell], path: Path, *, table: str = "test") -> str:
    """Draw the gain over the base per iteration, beside KL and length; return the alt text.

    Args:
        cells: The run's results.
        path: A PNG file to write.
        table: The set of prompts.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = iterations_of(select(cells, table=table))
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for judge, colour in COLOURS.items():
        for decoding, style in (("greedy", "-"), ("T=0.7", "--")):
            _draw_gain(left, cells, table, rows, judge, decoding, colour, style)
    left.axhline(0, color="#999999", linewidth=0.8)
    left.set_title("Gain over the base at equal decoding (± standard error)")
    left.set_ylabel("score difference")
    _ticks(left, rows)
    left.legend(frameon=False, fontsize=7)
    _draw_cost(right, cells, rows)
    figure.savefig(path, dpi=144, metadata={"Software": None})
    plt.close(figure)
    return _alternative_text(cells, table, rows)


def _draw_gain(
    axis: Any, cells: Sequence[Cell], table: str, rows: list[str], judge: str, decoding: str, colour: str, style: str
) -> None:
    values, errors = [0.0], [0.0]
    for row in rows[1:]:
        entry = find(cells, table=table, row=row, metric="gain over base", judge=judge, decoding=decoding)
        values.append(entry.value if entry and entry.value is not None else float("nan"))
        errors.append((entry.standard_error if entry else None) or 0.0)
    label = f"{NAMES[judge]}, {decoding}"
    axis.errorbar(
        range(len(rows)), values, errors, color=colour, linestyle=style, marker="o", ms=3, capsize=2, label=label
    )


def _draw_cost(axis: Any, cells: Sequence[Cell], rows: list[str]) -> None:
    def values(metric: str, decoding: str) -> list[float]:
        found = [find(cells, table="validation", row=row, metric=metric, decoding=decoding) for row in rows]
        return [entry.value if entry and entry.value is not None else float("nan") for entry in found]

    axis.plot(
        range(len(rows)), values("KL to base", "T=1"), color="#444444", marker="s", ms=3, label="KL to base (nats)"
    )
    axis.set_ylabel("KL to base, nats per response")
    axis.set_title("What it cost: KL (solid), length (dotted)")
    _ticks(axis, rows)
    lengths = axis.twinx()
    lengths.plot(range(len(rows)), values("length", "T=0.7"), color="#7a9e3f", marker="^", ms=3, linestyle=":")
    lengths.set_ylabel("mean length, tokens (T=0.7)")
    lengths.set_ylim(bottom=0)


def _ticks(axis: Any, rows: list[str]) -> None:
    axis.set_xticks(range(len(rows)), [row.replace("iteration-", "iteration ") for row in rows])


def _alternative_text(cells: Sequence[Cell], table: str, rows: list[str]) -> str:
    parts = []
    for judge, name in NAMES.items():
        entry = find(cells, table=table, row=rows[-1], metric="gain over base", judge=judge, decoding="greedy")
        if entry is not None and entry.value is not None:
            parts.append(f"{name} {entry.value:+.2f}")
    return f"Gain of {rows[-1]} over the base at greedy decoding: {', '.join(parts)}."
