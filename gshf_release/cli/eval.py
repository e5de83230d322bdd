"""`gshf-release eval RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import (
    Terminal,
    json_option,
    print_json,
    print_table,
    profile_option,
    say,
    shown_path,
)


@click.command(name="eval")
@click.argument("run", type=click.Path(path_type=Path))
@profile_option
@click.option(
    "--allow-redo", is_flag=True, help="Redo finished work that a changed recipe affects, even if it is much."
)
@json_option
def command(run: Path, profile: str, allow_redo: bool, as_json: bool) -> None:
    """Let the base and every iteration of RUN answer the evaluation prompts and compare them at equal decoding.

    The comparison is made by a stand-in annotator (the second scorer, which training never saw) and is labelled so.

    \b
    Examples:
      gshf-release eval runs/quickstart
      gshf-release eval runs/quickstart --json > results.json
    """
    from gshf_release import pipeline
    from gshf_release import profile as profiles
    from gshf_release.checkpoints import prepare
    from gshf_release.diagnostics.verdict import verdict
    from gshf_release.report.tables import all_tables
    from gshf_release.results import read_cells
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    where = profiles.load(profile)
    prepare(where)
    pipeline.evaluate(directory, where, allow_redo=allow_redo, observer=Terminal(directory))
    cells = read_cells(run / "results.json")
    if as_json:
        print_json({"cells": [cell.model_dump() for cell in cells]})
        return
    for table in all_tables(cells):
        print_table(table)
    click.echo(verdict(cells))
    say(f"Results: {shown_path(run / 'results.json')}\nNext: gshf-release publish {shown_path(run)} --out release-out")
