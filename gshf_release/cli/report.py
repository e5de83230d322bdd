"""`gshf-release report RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gshf_release.cli.terminal import json_option, print_json, print_table, say, show, shown_path, stale_line

if TYPE_CHECKING:
    from gshf_release.report.tables import Table


@click.command(name="report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
@click.option("--every-iteration", is_flag=True, help="Over seeds: show all iterations, not the last alone.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the results into this PNG file as well."
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep recipe, main cells and passed prompts in this folder: kilobytes, for a document.",
)
@click.option("--compare", metavar="REPORTED", help="Show differences from numbers in eval/reported.")
@json_option
def command(
    runs: tuple[Path, ...],
    as_markdown: bool,
    every_iteration: bool,
    plot: Path | None,
    keep: Path | None,
    compare: str | None,
    as_json: bool,
) -> None:
    """Print the results of RUN as tables: scorers, validation after every iteration, evaluation against the base.

    For the parent that `train --seeds` made, print one table over its seeds; for several of them, one table that sets their
    methods side by side.

    \b
    Examples:
      gshf-release report runs/quickstart
      gshf-release report runs/learn --markdown
      gshf-release report runs/learn runs/learn-raft --plot methods.png
      gshf-release report runs/fsfairx-zephyr-7b --compare fsfairx-zephyr-7b
    """
    from gshf_release.report.seeds import seed_folders
    from gshf_release.run.directory import seed_runs

    if keep is not None:
        _keep(runs, keep)
    if compare is not None and (len(runs) > 1 or seed_folders(runs[0])):
        raise click.UsageError("--compare needs one run.")
    if len(runs) > 1:
        _methods(runs, as_markdown, plot, as_json)
    elif seed_runs(runs[0]) or seed_folders(runs[0]):
        if plot is not None:
            raise click.UsageError("--plot needs one run, or the parents of several methods.")
        show_seeds(runs[0], as_json, as_markdown=as_markdown, every_iteration=every_iteration)
    else:
        _one(runs[0], as_markdown, plot, compare, as_json)


def _keep(runs: tuple[Path, ...], folder: Path) -> None:
    from gshf_release.report import kept
    from gshf_release.report.seeds import seed_folders
    from gshf_release.run.directory import RunDirectory

    if len(runs) > 1:
        raise click.UsageError("--keep needs one run, or the parent of its seeds.")
    seeds = {folder / f"seed-{seed}": source for seed, source in seed_folders(runs[0]).items()}
    for target, source in (seeds or {folder: runs[0]}).items():
        kept.keep(RunDirectory.open(source), target)
        say(f"Kept: {shown_path(target)}")


def _one(run: Path, as_markdown: bool, plot: Path | None, compare: str | None, as_json: bool) -> None:
    from gshf_release.data.results import read_cells, select
    from gshf_release.diagnostics.verdict import verdict
    from gshf_release.errors import RunError
    from gshf_release.report import figures
    from gshf_release.report.benchmarks import comparison_tables
    from gshf_release.report.notices import notices
    from gshf_release.report.tables import all_tables
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    if not (run / "results.json").is_file():
        raise RunError(f"{run} has no results yet.", hint="Run: gshf-release train RECIPE")
    cells = read_cells(run / "results.json")
    found = [*stale_line(directory), *notices(cells)]
    for line in found:
        show(f"> **{line}**\n") if as_markdown and not as_json else say(line)
    if plot is not None:
        say(f"{shown_path(plot)}: {figures.learning_curve(cells, plot)}")
    if as_json:
        print_json({"cells": [cell.model_dump() for cell in cells], "notices": found})
        return
    compared = comparison_tables(cells, compare) if compare is not None else []
    _print([*all_tables(cells), *compared], as_markdown)
    if select(cells, table="test"):
        show(verdict(cells))


def show_seeds(parent: Path, as_json: bool, *, as_markdown: bool = False, every_iteration: bool = False) -> None:
    """Print the results over the seeds of a parent.

    Raises:
        RunError: None of them has any yet.
    """
    from gshf_release.data.results import select
    from gshf_release.diagnostics.verdict import verdict
    from gshf_release.errors import RunError
    from gshf_release.report.seeds import all_seed_tables, merge, read_seeds, seed_folders, seed_notices
    from gshf_release.run.directory import RunDirectory

    folders = seed_folders(parent)
    seeds = read_seeds(folders)
    stale = [f"Seed {seed}: {line}" for seed, folder in folders.items() for line in stale_line(RunDirectory(folder))]
    found = [*stale, *seed_notices(seeds)]
    for line in found:
        show(f"> **{line}**\n") if as_markdown and not as_json else say(line)
    tables = all_seed_tables(seeds, every_iteration=every_iteration)
    if not any(seeds.values()):
        raise RunError(f"No seed of {parent} has results yet.", hint="Run: gshf-release train RECIPE --seeds 0,1,2")
    if as_json:
        by_seed = {str(seed): [cell.model_dump() for cell in cells] for seed, cells in seeds.items()}
        print_json({"cells": [cell.model_dump() for cell in merge(seeds)], "seeds": by_seed, "notices": found})
        return
    _print(tables, as_markdown)
    missing = [seed for seed, cells in seeds.items() if not select(cells, table="test")]
    for seed, cells in seeds.items():
        if seed not in missing:
            show(f"Seed {seed}: {verdict(cells)}")
    if missing:
        named = ", ".join(str(seed) for seed in missing)
        say(f"Not evaluated on the test prompts: seed {named}. Next: gshf-release eval {shown_path(parent)}")


def _methods(parents: tuple[Path, ...], as_markdown: bool, plot: Path | None, as_json: bool) -> None:
    from gshf_release.errors import RunError
    from gshf_release.report import figures
    from gshf_release.report.frontier import comparison_tables
    from gshf_release.report.methods import labels, method_table, points
    from gshf_release.report.seeds import read_seeds, seed_folders
    from gshf_release.run.directory import RunDirectory

    found = []
    for parent in parents:
        folders = seed_folders(parent) or {0: parent}
        for folder in folders.values():
            for line in stale_line(RunDirectory.open(folder)):
                say(f"{shown_path(folder)}: {line}")
        found.append((RunDirectory.open(next(iter(folders.values()))).recipe, folders))
    names = labels([recipe for recipe, _ in found])
    for parent, name in zip(parents, names, strict=True):
        if names.count(name) > 1:
            raise RunError(f"{parent}: another of the runs is {name} too.", hint="Give one parent for each method.")
    by_name = {name: folders for name, (_, folders) in zip(names, found, strict=True)}
    methods = {name: read_seeds(folders) for name, folders in by_name.items()}
    if plot is not None:
        say(f"{shown_path(plot)}: {figures.reward_against_divergence(points(methods), plot)}")
    if as_json:
        print_json(
            {
                name: {str(seed): [cell.model_dump() for cell in cells] for seed, cells in seeds.items()}
                for name, seeds in methods.items()
            }
        )
        return
    _print([method_table(methods), *comparison_tables(by_name)], as_markdown)


def _print(tables: list[Table], as_markdown: bool) -> None:
    from gshf_release.report.tables import markdown

    for table in tables:
        if as_markdown:
            show("\n\n".join([f"### {table.title}", markdown(table), *table.notes]) + "\n")
        else:
            print_table(table)
