"""`gshf-release report RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gshf_release.cli.terminal import json_option, print_json, print_table

if TYPE_CHECKING:
    from gshf_release.report.tables import Table


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
@click.option("--every-iteration", is_flag=True, help="Over seeds: show all iterations, not the last alone.")
@click.option("--compare", metavar="REPORTED", help="Show differences from numbers in eval/reported.")
@json_option
def command(run: Path, as_markdown: bool, every_iteration: bool, compare: str | None, as_json: bool) -> None:
    """Print the results of RUN as tables: scorers, validation after every iteration, evaluation against the base.

    For the parent that `train --seeds` made, print one table over its seeds.

    \b
    Examples:
      gshf-release report runs/quickstart
      gshf-release report runs/learn --markdown
      gshf-release report runs/fsfairx-zephyr-7b --compare fsfairx-zephyr-7b
    """
    from gshf_release.diagnostics.verdict import verdict
    from gshf_release.errors import RunError
    from gshf_release.report.benchmarks import comparison_tables
    from gshf_release.report.seeds import read_seeds, seed_folders, seed_table
    from gshf_release.report.tables import all_tables
    from gshf_release.results import read_cells, select
    from gshf_release.run.directory import RunDirectory

    folders = seed_folders(run)
    if folders:
        seeds = read_seeds(folders)
        if as_json:
            print_json({str(seed): [cell.model_dump() for cell in cells] for seed, cells in seeds.items()})
            return
        _print([seed_table(seeds, every_iteration=every_iteration)], as_markdown)
        for seed, cells in seeds.items():
            click.echo(f"Seed {seed}: {verdict(cells)}")
        return
    RunDirectory.open(run)
    if not (run / "results.json").is_file():
        raise RunError(f"{run} has no results yet.", hint="Run: gshf-release train RECIPE")
    cells = read_cells(run / "results.json")
    if as_json:
        print_json({"cells": [cell.model_dump() for cell in cells]})
        return
    compared = comparison_tables(cells, compare) if compare is not None else []
    _print([*all_tables(cells), *compared], as_markdown)
    if select(cells, table="test"):
        click.echo(verdict(cells))


def _print(tables: list[Table], as_markdown: bool) -> None:
    from gshf_release.report.tables import markdown

    for table in tables:
        if as_markdown:
            click.echo("\n\n".join([f"### {table.title}", markdown(table), *table.notes]) + "\n")
        else:
            print_table(table)
