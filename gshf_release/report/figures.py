"""Figures, drawn once and used by cards and documents. Equal cells give equal bytes: fixed fonts, no dates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gshf_release.data.results import Cell, find, select
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT
from gshf_release.errors import RunError
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.report.methods import UNTRAINED, MethodPoint
from gshf_release.report.tables import iterations_of

COLOURS = {"reward": "#1f6f8b", "second-scorer": "#c8553d"}
STYLES = {"greedy": "-", "T=0.7": "--"}
INTERVAL = 1.96
"""Standard errors on either side of a mean that make a 95 % interval."""
REPORTED = {"win rate": "#c8553d", "LC win rate": "#1f6f8b"}
NAMES = {"reward": "training reward", "second-scorer": "second scorer (never trained on)"}


def learning_curve(cells: Sequence[Cell], path: Path, *, table: str = "test") -> str:
    """Draw the gain over the base per iteration, beside KL and length; return the alt text.

    Args:
        cells: The run's results.
        path: A PNG file to write.
        table: The set of prompts.

    Raises:
        RunError: The run was not evaluated on them.
    """
    rows = iterations_of(select(cells, table=table))
    if not rows:
        raise RunError(f"There are no results on the {table} prompts to draw.", hint="Run: gshf-release eval RUN")
    with _drawn(path, 2, (9, 3.8)) as (left, right):
        _draw_gains(left, cells, table, rows)
        _draw_cost(right, cells, rows)
    return _alternative_text(cells, table, rows)


def reported_curve(document: Mapping[str, Any], path: Path) -> str:
    """Draw published win rates per iteration beside the length of the answers; return the alt text.

    Args:
        document: A file in eval/reported.
        path: A PNG file to write; its folder is made.
    """
    rows, unit = document["rows"], document["length_unit"]
    positions = range(len(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _drawn(path, 1, (6, 3.6)) as (axis,):
        for key, colour in REPORTED.items():
            axis.plot(positions, [row[key] for row in rows], color=colour, marker="o", ms=4, label=f"{key}, %")
        axis.set_ylim(bottom=0)
        axis.set_ylabel("%")
        axis.set_title(f"{document['benchmark']}, as reported")
        _ticks(axis, [row["row"] for row in rows])
        lengths = axis.twinx()
        lengths.plot(positions, [row["length"] for row in rows], color="#7a9e3f", marker="^", ms=4, linestyle=":")
        lengths.set_ylim(bottom=0)
        lengths.set_ylabel(f"mean length, {unit} (dotted)")
        lengths.yaxis.label.set_color("#5f7d2e")
        axis.legend(frameon=False, loc="upper left")
    points = [f"{row['row']} {row['win rate']} and {row['LC win rate']} at {row['length']} {unit}" for row in rows]
    return f"Win rate and length-controlled (LC) win rate in percent, as reported: {'; '.join(points)}."


def reward_against_divergence(points: Sequence[MethodPoint], path: Path) -> str:
    """Draw the gain at temperature 1 over the divergence from the base, a panel for each scorer; return the alt text.

    Args:
        points: The models of several methods.
        path: A PNG file to write.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    with _drawn(path, 2, (9, 3.8)) as axes:
        for axis, (judge, name) in zip(axes, NAMES.items(), strict=True):
            for number, method in enumerate(methods):
                _draw_method(axis, [point for point in points if point.method == method], judge, f"C{number}")
            axis.axhline(0, color="#999999", linewidth=0.8)
            axis.set_title(f"{name[0].upper()}{name[1:]}, T=1")
            axis.set_xlabel("KL to the base, nats per response")
            axis.set_ylabel("gain over the base")
            axis.spines["right"].set_visible(False)
        axes[0].legend(frameon=False, fontsize=8)
    return "Gain over the base at temperature 1 against the divergence from it: " + ", ".join(methods)


@contextlib.contextmanager
def _drawn(path: Path, panels: int, size: tuple[float, float]) -> Iterator[Sequence[Any]]:
    """Yield the panels of a figure, side by side, and write it as a PNG file.

    The style is our own, whatever a `matplotlibrc` says: the current folder's may be anybody's, with a LaTeX preamble.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False})
        figure, axes = plt.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
        yield axes[0]
        figure.savefig(path, dpi=144, metadata={"Software": None})
        plt.close(figure)


def _draw_method(axis: Any, points: Sequence[MethodPoint], judge: str, colour: str) -> None:
    """Draw one method's models in order, from the base at zero, with standard errors across seeds both ways."""
    found = [
        (point.divergence, point.gains[judge, "T=1"])
        for point in points
        if point.divergence is not None and (judge, "T=1") in point.gains
    ]
    if not found:
        return
    axis.errorbar(
        [0.0, *(divergence.value for divergence, _ in found)],
        [0.0, *(gain.value for _, gain in found)],
        [0.0, *(gain.standard_error or 0.0 for _, gain in found)],
        [0.0, *(divergence.standard_error or 0.0 for divergence, _ in found)],
        color=colour,
        marker="o",
        ms=3,
        capsize=2,
        elinewidth=0.8,
        linestyle=":" if points[0].method in UNTRAINED else "-",
        label=points[0].method,
    )


class GainLine(NamedTuple):
    """One line of the learning curve: gains over the base under one scorer at one decoding on one set of prompts."""

    table: str
    judge: str
    decoding: str
    label: str
    colour: str
    style: str


def _checks_rules(cells: Sequence[Cell], table: str) -> bool:
    """Return whether the reward is a share of checked rules."""
    return bool(select(cells, table=table, metric=ALL_RULES_KEPT, judge="reward"))


def _gain_lines(cells: Sequence[Cell], table: str) -> list[GainLine]:
    """Return both scorers at both decodings; where the reward checks rules, those of training beside those it never saw."""
    if _checks_rules(cells, table):
        trained, unseen = COLOURS["reward"], COLOURS["second-scorer"]
        return [
            GainLine(table, "reward", "greedy", "kinds of rules trained on, greedy", trained, "-"),
            GainLine(table, "reward", "T=0.7", "kinds of rules trained on, T=0.7", trained, "--"),
            GainLine("eval", "reward", "greedy", "other kinds of rules, greedy", unseen, "-"),
        ]
    return [
        GainLine(table, judge, decoding, f"{NAMES[judge]}, {decoding}", colour, style)
        for judge, colour in COLOURS.items()
        for decoding, style in STYLES.items()
    ]


def _draw_gains(axis: Any, cells: Sequence[Cell], table: str, rows: list[str]) -> None:
    lines = _gain_lines(cells, table)
    for number, line in enumerate(lines):
        beside = 0.03 * (number - (len(lines) - 1) / 2)  # error bars stand beside each other
        _draw_gain(axis, cells, rows, line, beside)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set_title("Gain in reward over the base (95 % intervals)")
    axis.set_ylabel("share of rules kept, more than the base" if _checks_rules(cells, table) else "score difference")
    axis.spines["right"].set_visible(False)
    _ticks(axis, rows)
    bars, labels = axis.get_legend_handles_labels()
    axis.legend(
        [bar.lines[0] for bar in bars],
        labels,
        frameon=False,
        fontsize=7,
        handlelength=3.5,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
    )


def _draw_gain(axis: Any, cells: Sequence[Cell], rows: list[str], line: GainLine, beside: float) -> None:
    values, errors = [0.0], [0.0]
    for row in rows[1:]:
        place = {"table": line.table, "judge": line.judge, "decoding": line.decoding}
        entry = find(cells, row=row, metric="gain over base", **place)
        values.append(entry.value if entry and entry.value is not None else float("nan"))
        errors.append(INTERVAL * ((entry.standard_error if entry else None) or 0.0))
    axis.errorbar(
        [position + beside for position in range(len(rows))],
        values,
        errors,
        color=line.colour,
        linestyle=line.style,
        marker="o",
        ms=3,
        capsize=2,
        elinewidth=1,
        label=line.label,
    )


def _draw_cost(axis: Any, cells: Sequence[Cell], rows: list[str]) -> None:
    def values(metric: str, decoding: str) -> list[float]:
        found = [find(cells, table="validation", row=row, metric=metric, decoding=decoding) for row in rows]
        return [entry.value if entry and entry.value is not None else float("nan") for entry in found]

    axis.plot(range(len(rows)), values(KL_TO_BASE, "T=1"), color="#444444", marker="s", ms=3, label="KL to base (nats)")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("KL to base, nats per response")
    axis.set_title("What it cost: KL (solid), length (dotted)")
    _ticks(axis, rows)
    lengths = axis.twinx()
    lengths.plot(range(len(rows)), values("length", "T=0.7"), color="#7a9e3f", marker="^", ms=3, linestyle=":")
    lengths.set_ylabel("mean length, tokens (T=0.7)")
    lengths.set_ylim(bottom=0)
    lengths.yaxis.label.set_color("#5f7d2e")


def _ticks(axis: Any, rows: list[str]) -> None:
    axis.set_xticks(range(len(rows)), [row.replace("iteration-", "iteration ") for row in rows])


def _alternative_text(cells: Sequence[Cell], table: str, rows: list[str]) -> str:
    parts = []
    for line in _gain_lines(cells, table):
        place = {"table": line.table, "judge": line.judge, "decoding": line.decoding}
        entry = find(cells, row=rows[-1], metric="gain over base", **place)
        if line.decoding == "greedy" and entry is not None and entry.value is not None:
            parts.append(f"{line.label.removesuffix(', greedy')} {entry.value:+.2f}")
    return f"Gain of {rows[-1]} over the base at greedy decoding: {', '.join(parts)}."
