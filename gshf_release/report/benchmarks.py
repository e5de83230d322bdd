"""Tables of benchmarks: one for each benchmark, judge and baseline, so that no two judges share a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gshf_release.data import assets
from gshf_release.data.results import Cell, find, rows_of, select, shown
from gshf_release.errors import DataError
from gshf_release.evaluation import metrics
from gshf_release.evaluation.metrics import CALIBRATED, FAILED, MEASURES, NOISE, NOISE_SHARE
from gshf_release.recipe import read_mapping
from gshf_release.report import partial
from gshf_release.report.partial import MARKS, BenchmarkGroup, groups
from gshf_release.report.table import Table

IMPORTED = "lm-evaluation-harness"
COLUMNS = {
    "LC win rate": {"win rate": 2, "LC win rate": 2, "length": 0, FAILED: 0},
    "average": {"first turn": 2, "second turn": 2, "average": 2, FAILED: 0},
    "adjusted win rate": {"win rate": 1, "loss rate": 1, "adjusted win rate": 1, FAILED: 0},
}
"""By mark: `{metric: digits shown}`."""
INTERVALS = {
    CALIBRATED: "calibrated win rate % (90 % interval)",
    "average": "95 % interval of the average",
    "adjusted win rate": "95 % interval of the adjusted win rate, %",
}
"""By metric: the column of its interval, where it was measured."""
NAMES = {"AlpacaEval 2": "alpaca_eval_2", "MT-Bench": "mt_bench"}
"""What files of reported numbers call a benchmark, and its name in eval/benchmarks."""
UNITS = {"%": " %", "characters": ", characters"}


def benchmark_tables(cells: Sequence[Cell]) -> list[Table]:
    """Return one table for each benchmark, judge and baseline, rows as measured; and one of imported results."""
    tables = []
    for group in groups(cells):
        chosen = group.of(cells)
        tables.append(_measured(chosen, group))
        further = (_differences(chosen, group), _categories(chosen, group))
        tables += [each for each in further if each is not None]
    return [*tables, *_imported(cells)]


def comparison_tables(cells: Sequence[Cell], name: str) -> list[Table]:
    """Return measured numbers beside those of eval/reported/<name>.yaml, and their differences.

    Raises:
        RecipeError: There is no such file.
        DataError: Nothing of it was measured.
    """
    content = read_mapping(assets.find(name, "eval/reported", ".yaml"))
    wanted = NAMES.get(str(content["benchmark"]), str(content["benchmark"]))
    tables = [_compared(group.of(cells), content, group) for group in groups(cells) if group.table == wanted]
    if not tables:
        raise DataError(
            f"{content['name']} reports {content['benchmark']}, which this run has not measured.",
            hint=f"Run: gshf-release eval RUN --benchmark {wanted}",
        )
    return tables


def _measured(cells: Sequence[Cell], group: BenchmarkGroup) -> Table:
    columns = COLUMNS[group.mark]
    measured = {entry.metric for entry in cells}
    wanted = {metric: CALIBRATED if metric == CALIBRATED else metrics.low(metric) for metric in INTERVALS}
    intervals = {metric: INTERVALS[metric] for metric, needed in wanted.items() if needed in measured}
    header = ["model"]
    for metric in columns:
        entry = find(cells, metric=metric)
        header.append(metric + (UNITS.get(entry.unit, "") if entry is not None else ""))
    rows = [
        [
            row,
            *(shown(find(cells, row=row, metric=metric), digits) for metric, digits in columns.items()),
            *(_ranged(cells, row, metric, estimate=metric == CALIBRATED) for metric in intervals),
            _count(cells, row),
        ]
        for row in rows_of(cells)
    ]
    decodings = ", ".join(dict.fromkeys(entry.decoding for entry in cells if entry.decoding))
    told = [f"{row} has {count} judgments." for row, count in partial.shortfalls(cells).items()]
    notes = [" ".join(["Incomplete:", *told, partial.ADVICE])] if told else []
    notes += [f"Measured ± standard error over prompts. Judge: {group.judge}. Decoding: {decodings}."]
    noted = (*MARKS, CALIBRATED)
    notes += [f"{entry.row}, {entry.metric}: {entry.note}." for entry in cells if entry.metric in noted and entry.note]
    notes += [_noise(cells, entry) for entry in cells if entry.metric == NOISE]
    return Table(f"{group.title}{partial.mark(cells)}", [*header, *intervals.values(), "n"], rows, notes)


def _ranged(cells: Sequence[Cell], row: str, metric: str, *, estimate: bool) -> str:
    """Return the ends of a metric's interval, after the estimate itself if no other column has it."""
    main, low, high = (
        find(cells, row=row, metric=name) for name in (metric, metrics.low(metric), metrics.high(metric))
    )
    if low is None or high is None:
        return "–"
    ends = f"{shown(low)} to {shown(high)}"
    return f"{shown_value(main)} ({ends})" if estimate else ends


def shown_value(entry: Cell | None) -> str:
    """Return a cell's value without its error, which an interval beside it says better."""
    return "–" if entry is None or entry.value is None else f"{entry.value:.2f}"


def _noise(cells: Sequence[Cell], entry: Cell) -> str:
    share = find(cells, row=entry.row, metric=NOISE_SHARE)
    told = "" if share is None or share.value is None else f", {share.value:.0f} % {share.note}"
    return f"{entry.row}, judge noise: standard deviation {shown_value(entry)} {entry.note}{told}."


def _differences(cells: Sequence[Cell], group: BenchmarkGroup) -> Table | None:
    """Return each row's paired differences from the first row and from the one before it, or None if there are none."""
    rows, notes = [], []
    for entry in cells:
        measure = next((name for name in MEASURES if entry.metric.startswith(metrics.difference(name, ""))), None)
        other = entry.metric.removeprefix(metrics.difference(measure, "")) if measure is not None else ""
        if measure is None or entry.metric != metrics.difference(measure, other) or _is_end(entry.metric):
            continue
        test, least = (
            find(cells, row=entry.row, metric=name) for name in (metrics.sign_test(other), metrics.detectable(other))
        )
        sign = "–" if test is None or test.value is None else f"{test.value:.3g} ({test.note})"
        interval = _ranged(cells, entry.row, entry.metric, estimate=False)
        count = "–" if entry.n is None else str(entry.n)
        rows.append([entry.row, other, measure, shown(entry), interval, sign, shown_value(least), count])
        notes += [f"{entry.row} and {other}: {entry.note}."] if entry.note not in ("", "paired") else []
    if not rows:
        return None
    header = ["model", "compared with", "measure", "difference", "95 % interval", "sign test p", "detectable", "pairs"]
    notes = [
        "Differences on the same prompts ± standard error, interval by paired bootstrap (MT-Bench: over questions), exact sign "
        "test. Detectable: the true difference that a test at 5 % finds with a probability of 80 % on as many prompts.",
        *notes,
    ]
    return Table(f"{group.title}: paired differences{partial.mark(cells)}", header, rows, notes)


def _is_end(metric: str) -> bool:
    return metric.endswith((metrics.low(""), metrics.high("")))


def _count(cells: Sequence[Cell], row: str) -> str:
    entry = partial.number_of(cells, row)
    if entry is None:
        return "–"
    return f"{entry.count} (incomplete)" if partial.is_partial(cells, row) else entry.count


def _categories(cells: Sequence[Cell], group: BenchmarkGroup) -> Table | None:
    names = list(dict.fromkeys(entry.metric for entry in cells if entry.metric.startswith("average: ")))
    if not names:
        return None
    rows = [[row, *(shown(find(cells, row=row, metric=name)) for name in names)] for row in rows_of(cells)]
    header = ["model", *(name.removeprefix("average: ") for name in names)]
    return Table(f"{group.table} by category, judged by {group.judge}{partial.mark(cells)}", header, rows)


def _compared(cells: Sequence[Cell], content: dict[str, Any], group: BenchmarkGroup) -> Table:
    metrics = [key for key in content["rows"][0] if key != "row" and find(cells, metric=key) is not None]
    rows = []
    for reported in content["rows"]:
        row = [str(reported["row"])]
        for metric in metrics:
            digits = 0 if metric == "length" else 2
            entry, other = find(cells, row=reported["row"], metric=metric), reported.get(metric)
            row += [shown(entry, digits), "–" if other is None else f"{float(other):.{digits}f}"]
            if entry is None or entry.value is None or other is None:
                row.append("–")
            else:
                row.append(f"{entry.value - float(other):+.{digits}f}")
        rows.append(row)
    header = ["model", *(part for metric in metrics for part in (f"{metric}, measured", "reported", "difference"))]
    notes = [
        f"Reported for {content['name']}: judge {content['judge']}, baseline {content['baseline']}, source "
        f"{content['source']}. "
        f"Measured: judge {group.judge}, baseline {group.baseline}. Another judge's numbers differ for that reason alone."
    ]
    mark = partial.mark(cells)
    notes = [*([f"Incomplete{mark.removeprefix(' (incomplete')[:-1]}. {partial.ADVICE}"] if mark else []), *notes]
    return Table(f"{content['benchmark']}: measured beside reported{mark}", header, rows, notes)


def _imported(cells: Sequence[Cell]) -> list[Table]:
    chosen = select(cells, table=IMPORTED)
    if not chosen:
        return []
    columns = rows_of(chosen)
    metrics = list(dict.fromkeys((entry.metric, entry.decoding) for entry in chosen))
    rows = [
        [
            metric + (f", {decoding}" if decoding else ""),
            *(shown(find(chosen, row=row, metric=metric, decoding=decoding), 4) for row in columns),
        ]
        for metric, decoding in metrics
    ]
    return [Table("Imported from lm-evaluation-harness", ["task", *columns], rows)]
