"""Tables over the seeds of one recipe: each seed's gains with their paired standard errors, and the mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gshf_release import statistics
from gshf_release.diagnostics.validation import BOUND
from gshf_release.evaluation.metrics import CALIBRATED
from gshf_release.logprobs import KL_TO_BASE
from gshf_release.report import benchmarks
from gshf_release.report.tables import Table
from gshf_release.results import Cell, find, read_cells, rows_of, select, shown

JUDGES = ("reward", "second-scorer")
DECODINGS = ("greedy", "T=0.7", "T=1")


def seed_folders(path: Path) -> dict[int, Path]:
    """Return `{seed: run directory}` of a parent that `train --seeds` made, in order; empty for a single run."""
    found = {
        int(folder.name.removeprefix("seed-")): folder
        for folder in path.glob("seed-*")
        if folder.name.removeprefix("seed-").isdigit() and (folder / "results.json").is_file()
    }
    return dict(sorted(found.items()))


def read_seeds(folders: Mapping[int, Path]) -> dict[int, list[Cell]]:
    """Return the cells of every seed."""
    return {seed: read_cells(folder / "results.json") for seed, folder in folders.items()}


def seed_table(seeds: Mapping[int, Sequence[Cell]], table: str = "test", *, every_iteration: bool = False) -> Table:
    """Return every measure with a column per seed, the mean over seeds and the standard error across them.

    Args:
        seeds: The cells of each seed.
        table: The set of prompts.
        every_iteration: Show all iterations; else the last one. Controls are shown in both cases.
    """
    header = ["model", "measure", *(f"seed {seed}" for seed in seeds), "mean over seeds", "SE across seeds"]
    first = next(iter(seeds.values()))
    rows = []
    shown_rows = [row for row in rows_of(select(first, table=table)) if row != "base"]
    iterations = [row for row in shown_rows if row.startswith("iteration-")]
    for row in shown_rows:
        if row in iterations[:-1] and not every_iteration:
            continue
        for name, measure in measures(first, table).items():
            found = [find(cells, row=row, **measure) for cells in seeds.values()]
            if any(entry is not None for entry in found):
                rows.append([row, name, *(shown(entry) for entry in found), *_over_seeds(found)])
    count = max((entry.n or 0 for entry in select(first, table=table, metric="gain over base")), default=0)
    notes = [
        "A seed's cell: mean over prompts ± its standard error; gains are paired differences from the base at equal decoding. "
        "Rows `base at ...` are controls: the untrained base at a lower temperature against itself at T=0.7.",
    ]
    return Table(f"Over {len(seeds)} seeds, n = {count} {table} prompts each", header, rows, notes)


def benchmark_seed_tables(seeds: Mapping[int, Sequence[Cell]], *, every_iteration: bool = False) -> list[Table]:
    """Return a table for each benchmark, judge and baseline: a column per seed, the mean, the standard error across seeds.

    Args:
        seeds: The cells of each seed; one that was not evaluated has dashes.
        every_iteration: Show all iterations; else the base and the last one.
    """
    groups = dict.fromkeys(group for cells in seeds.values() for group in benchmarks.groups(cells))
    return [_benchmark_table(seeds, *group, every_iteration=every_iteration) for group in groups]


def _benchmark_table(
    seeds: Mapping[int, Sequence[Cell]], table: str, judge: str, baseline: str, mark: str, *, every_iteration: bool
) -> Table:
    chosen = {
        seed: select(cells, table=table, judge=judge, baseline=baseline, origin="measured")
        for seed, cells in seeds.items()
    }
    every = dict.fromkeys(row for cells in chosen.values() for row in rows_of(cells))
    iterations = sorted((row for row in every if row.startswith("iteration-")), key=lambda row: int(row[10:]))
    shown_rows = ["base", *(iterations if every_iteration else iterations[-1:])]
    rows = []
    for row in shown_rows:
        for metric, digits in {**benchmarks.COLUMNS[mark], CALIBRATED: 2}.items():
            found = [find(cells, row=row, metric=metric) for cells in chosen.values()]
            if metric != benchmarks.FAILED and any(entry is not None for entry in found):
                rows.append([row, metric, *(shown(entry, digits) for entry in found), *_over_seeds(found)])
    against = f" against {baseline}" if baseline else ""
    header = ["model", "measure", *(f"seed {seed}" for seed in seeds), "mean over seeds", "SE across seeds"]
    notes = [
        "A seed's cell: its number ± the standard error over prompts. The last column is the standard error of the mean over "
        "training seeds, which the errors over prompts do not contain."
    ]
    return Table(f"{table}, judged by {judge}{against}, over {len(seeds)} seeds", header, rows, notes)


def measures(cells: Sequence[Cell], table: str) -> dict[str, dict[str, str]]:
    """Return `{shown name: what selects its cell}`."""
    controls = dict.fromkeys(entry.baseline for entry in select(cells, table=table, metric="gain over control"))
    found: dict[str, dict[str, str]] = {}
    for judge in JUDGES:
        for decoding in DECODINGS:
            selection = {"table": table, "metric": "gain over base", "judge": judge, "decoding": decoding}
            found[f"gain, {judge}, {decoding}"] = selection
    for judge in JUDGES:
        for control in controls:
            selection = {"table": table, "metric": "gain over control", "judge": judge, "baseline": str(control)}
            found[f"gain over {control}, {judge}, T=0.7"] = selection
    for decoding in DECODINGS:
        found[f"win rate %, {decoding}"] = {"table": table, "metric": "win rate", "decoding": decoding}
    for decoding in DECODINGS:
        found[f"tokens, {decoding}"] = {"table": table, "metric": "length", "decoding": decoding}
    found["cut %, T=0.7"] = {"table": table, "metric": "cut", "decoding": "T=0.7"}
    found["best-of-n KL bound, nats"] = {"table": table, "metric": BOUND}
    found["KL to base, nats"] = {"table": "validation", "metric": KL_TO_BASE}
    return found


def _over_seeds(found: Sequence[Cell | None]) -> list[str]:
    values = [entry.value for entry in found if entry is not None and entry.value is not None]
    if not values:
        return ["–", "–"]
    estimate = statistics.mean(values)
    error = estimate.standard_error
    return [f"{estimate.value:.2f}", "–" if error is None else f"{error:.2f}"]
