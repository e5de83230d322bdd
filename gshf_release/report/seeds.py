"""Tables over the seeds of one recipe: each seed's gains with their paired standard errors, and the mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gshf_release import statistics
from gshf_release.logprobs import KL_TO_BASE
from gshf_release.report.tables import Table
from gshf_release.results import Cell, find, read_cells, rows_of, select, shown

JUDGES = ("reward", "second-scorer")
DECODINGS = ("greedy", "T=0.7")


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


def seed_table(seeds: Mapping[int, Sequence[Cell]], table: str = "test") -> Table:
    """Return the gain over the base at equal decoding, a line per model and seed, then their mean over seeds."""
    header = ["model", "seed", *(f"{judge}, {decoding}" for judge in JUDGES for decoding in DECODINGS)]
    header += ["win rate %, greedy", "tokens, T=0.7", "KL to base"]
    first = next(iter(seeds.values()))
    wanted = [row for row in rows_of(select(first, table=table)) if row != "base"]
    rows = []
    for row in wanted:
        rows += [_seed_row(select(cells, table=table), cells, row, seed) for seed, cells in seeds.items()]
        rows.append(_mean_row([select(cells, table=table) for cells in seeds.values()], row))
    count = max((entry.n or 0 for entry in select(first, table=table, metric="gain over base")), default=0)
    notes = [
        "A seed's line: paired difference over prompts ± its standard error. The mean over seeds: ± the standard error across "
        "seeds. Rows `base at ...` are controls: the untrained base at a lower temperature against itself at T=0.7.",
    ]
    return Table(f"Gain over the base at equal decoding, n = {count} prompts a seed", header, rows, notes)


def _seed_row(chosen: Sequence[Cell], cells: Sequence[Cell], row: str, seed: int) -> list[str]:
    gains = [shown(_gain(chosen, row, judge, decoding)) for judge in JUDGES for decoding in DECODINGS]
    return [
        row,
        str(seed),
        *gains,
        shown(find(chosen, row=row, metric="win rate", decoding="greedy"), digits=1),
        shown(find(chosen, row=row, metric="length", decoding="T=0.7"), digits=0),
        shown(find(cells, table="validation", row=row, metric=KL_TO_BASE)),
    ]


def _mean_row(seeds: Sequence[Sequence[Cell]], row: str) -> list[str]:
    texts = []
    for judge in JUDGES:
        for decoding in DECODINGS:
            found = [_gain(cells, row, judge, decoding) for cells in seeds]
            values = [entry.value for entry in found if entry is not None and entry.value is not None]
            texts.append(_mean_text(values))
    wins = [find(cells, row=row, metric="win rate", decoding="greedy") for cells in seeds]
    rates = [entry.value for entry in wins if entry is not None and entry.value is not None]
    return [row, "mean", *texts, _mean_text(rates, digits=1), "", ""]


def _mean_text(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "–"
    estimate = statistics.mean(values)
    text = f"{estimate.value:.{digits}f}"
    return text if estimate.standard_error is None else f"{text} ± {estimate.standard_error:.{digits}f}"


def _gain(cells: Sequence[Cell], row: str, judge: str, decoding: str) -> Cell | None:
    return find(cells, row=row, metric="gain over base", judge=judge, decoding=decoding)
