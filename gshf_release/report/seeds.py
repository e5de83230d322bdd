"""Tables over the seeds of one recipe: each seed's gains with their paired standard errors, and the mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gshf_release.data import statistics
from gshf_release.data.results import Cell, find, read_cells, rows_of, select, shown, write_cells, write_csv
from gshf_release.diagnostics.validation import BOUND
from gshf_release.errors import VerificationError
from gshf_release.evaluation.metrics import CALIBRATED, FAILED
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.report import benchmarks, partial
from gshf_release.report.notices import notices
from gshf_release.report.partial import BenchmarkGroup
from gshf_release.report.tables import Table, markdown
from gshf_release.run.directory import seed_runs, write_text
from gshf_release.run.stage import is_iteration

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


def seed_notices(seeds: Mapping[int, Sequence[Cell]]) -> list[str]:
    """Return what weakens the benchmarks' numbers of each seed, in lines that stand before the tables over seeds."""
    return [f"Seed {seed}: {line}" for seed, cells in seeds.items() for line in notices(cells)]


def merge(seeds: Mapping[int, Sequence[Cell]]) -> list[Cell]:
    """Return one cell for each question that any seed answers: the mean over seeds, and its standard error across them.

    The errors over prompts stay with the seeds: all seeds answer the same prompts, so they do not average out.
    """
    answers: dict[tuple[str, ...], list[Cell]] = {}
    for entry in (entry for cells in seeds.values() for entry in cells):
        answers.setdefault(entry.key, []).append(entry)
    return [_merged(found) for found in answers.values()]


def _merged(found: Sequence[Cell]) -> Cell:
    values = [entry.value for entry in found if entry.value is not None]
    estimate = statistics.mean(values) if values else None
    counts, notes = {(entry.n, entry.of) for entry in found}, {entry.note for entry in found}
    return found[0].model_copy(
        update={
            "value": None if estimate is None else estimate.value,
            "standard_error": None,
            "n": found[0].n if len(counts) == 1 else None,
            "of": found[0].of if len(counts) == 1 else None,
            "artefact": "",
            "note": found[0].note if len(notes) == 1 else "",
            "seeds": len(values),
            "standard_error_across_seeds": None if estimate is None else estimate.standard_error,
        }
    )


def write_merged(parent: Path) -> None:
    """Write results.json, results.csv and results.md of a parent: the merge over those of its seeds that have results."""
    seeds = read_seeds(seed_folders(parent))
    if not seeds:
        return
    cells = merge(seeds)
    write_cells(cells, parent / "results.json")
    write_csv(cells, parent / "results.csv")
    parts = [f"# Results of {parent.resolve().name} over {len(seeds)} seeds"]
    parts += [f"> **{line}**" for line in seed_notices(seeds)]
    for table in all_seed_tables(seeds, every_iteration=True):
        parts += [f"## {table.title}", markdown(table), *table.notes]
    write_text(parent / "results.md", "\n\n".join(parts) + "\n")


def refresh(run: Path) -> None:
    """Write the merge of a run's parent again, if the run is one of its seeds and the parent has a merge."""
    parent = run.resolve().parent
    if (parent / "results.json").is_file() and run.resolve() in seed_runs(parent).values():
        write_merged(parent)


def verify_merged(parent: Path) -> None:
    """Check the merge of a parent, if it has one.

    Raises:
        VerificationError: It is not that of its seeds.
    """
    path = parent / "results.json"
    if path.is_file() and read_cells(path) != merge(read_seeds(seed_folders(parent))):
        raise VerificationError(
            f"{path} is not the merge of its seeds.",
            hint=f"If a seed was changed on purpose: gshf-release eval {parent}",
        )


def all_seed_tables(seeds: Mapping[int, Sequence[Cell]], *, every_iteration: bool = False) -> list[Table]:
    """Return the tables over seeds that have cells: the test prompts, or what training measured before the evaluation."""
    evaluated = any(select(cells, table="test") for cells in seeds.values())
    first = seed_table(seeds, "test" if evaluated else "validation", every_iteration=every_iteration)
    tables = [first, *benchmark_seed_tables(seeds, every_iteration=every_iteration)]
    return [table for table in tables if table.rows]


def seed_table(seeds: Mapping[int, Sequence[Cell]], table: str = "test", *, every_iteration: bool = False) -> Table:
    """Return every measure with a column per seed, the mean over seeds and the standard error across them.

    Args:
        seeds: The cells of each seed.
        table: The set of prompts.
        every_iteration: Show all iterations; else the last one. Controls are shown in both cases.
    """
    header = ["model", "measure", *(f"seed {seed}" for seed in seeds), "mean over seeds", "SE across seeds"]
    every = [entry for cells in seeds.values() for entry in cells]
    rows = []
    shown_rows = [row for row in rows_of(select(every, table=table)) if row != "base"]
    iterations = [row for row in shown_rows if is_iteration(row)]
    for row in shown_rows:
        if row in iterations[:-1] and not every_iteration:
            continue
        for name, measure in measures(every, table).items():
            found = [find(cells, row=row, **measure) for cells in seeds.values()]
            if any(entry is not None for entry in found):
                rows.append([row, name, *(shown(entry) for entry in found), *_over_seeds(found)])
    count = max((entry.n or 0 for entry in select(every, table=table, metric="gain over base")), default=0)
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
    groups = dict.fromkeys(group for cells in seeds.values() for group in partial.groups(cells))
    return [_benchmark_table(seeds, group, every_iteration=every_iteration) for group in groups]


def _benchmark_table(seeds: Mapping[int, Sequence[Cell]], group: BenchmarkGroup, *, every_iteration: bool) -> Table:
    chosen = {seed: group.of(cells, origin="measured") for seed, cells in seeds.items()}
    every = dict.fromkeys(row for cells in chosen.values() for row in rows_of(cells))
    iterations = sorted((row for row in every if is_iteration(row)), key=lambda row: int(row[10:]))
    shown_rows = ["base", *(iterations if every_iteration else iterations[-1:])]
    rows = []
    for row in shown_rows:
        for metric, digits in {**benchmarks.COLUMNS[group.mark], CALIBRATED: 2}.items():
            found = [find(cells, row=row, metric=metric) for cells in chosen.values()]
            if metric != FAILED and any(entry is not None for entry in found):
                rows.append([row, metric, *(shown(entry, digits) for entry in found), *_over_seeds(found)])
    header = ["model", "measure", *(f"seed {seed}" for seed in seeds), "mean over seeds", "SE across seeds"]
    notes = [
        "A seed's cell: its number ± the standard error over prompts. The last column is the standard error of the mean over "
        "training seeds, which the errors over prompts do not contain."
    ]
    marks = list(dict.fromkeys(told for cells in chosen.values() if (told := partial.mark(cells))))
    notes = [*([f"Incomplete in at least one seed. {partial.ADVICE}"] if marks else []), *notes]
    return Table(f"{group.title}, over {len(seeds)} seeds{''.join(marks)}", header, rows, notes)


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
