"""`gshf-release report RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json, print_table


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def command(run: Path, as_json: bool) -> None:
    """Print the results of RUN as tables: scorers, validation after every iteration, evaluation against the base.

    \b
    Example:
      gshf-release report runs/quickstart
    """
    from gshf_release.errors import RunError
    from gshf_release.report.tables import all_tables
    from gshf_release.report.verdict import verdict
    from gshf_release.results import read_cells, select
    from gshf_release.run.directory import RunDirectory

    RunDirectory.open(run)
    if not (run / "results.json").is_file():
        raise RunError(f"{run} has no results yet.", hint="Run: gshf-release train RECIPE")
    cells = read_cells(run / "results.json")
    if as_json:
        print_json({"cells": [cell.model_dump() for cell in cells]})
        return
    for table in all_tables(cells):
        print_table(table)
    if select(cells, table="test"):
        click.echo(verdict(cells))
