"""`gshf-release status RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json


@click.command(name="status")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def command(run: Path, as_json: bool) -> None:
    """Show which stages of RUN are finished and how long each took. Never locks; safe beside a running process.

    \b
    Example:
      gshf-release status runs/quickstart
    """
    from gshf_release.run.directory import RunDirectory
    from gshf_release.run.execution import seconds_spent
    from gshf_release.run.manifest import State, state
    from gshf_release.run.stage import check_graph, tasks

    directory = RunDirectory.open(run)
    by_name = check_graph(directory.plan)
    recipe, spent = directory.recipe, seconds_spent(directory)
    rows = []
    for task in tasks(directory.plan):
        condition = state(task, directory, recipe, by_name, hashes=False)
        seconds = spent.get(task.label) if condition is State.FINISHED else None
        rows.append({"task": task.label, "state": condition.value, "seconds": seconds})
    finished = [row for row in rows if row["state"] == State.FINISHED.value]
    total = sum(float(row["seconds"] or 0.0) for row in finished)
    if as_json:
        print_json({"name": recipe.name, "tasks": rows, "seconds": round(total, 1)})
        return
    for row in rows:
        took = f"{row['seconds']:8.1f} s" if row["seconds"] is not None else " " * 10
        click.echo(f"{row['state']:9} {took}  {row['task']}")
    click.echo(f"{len(finished)} of {len(rows)} tasks finished, {total / 60:.1f} minutes of work.")
