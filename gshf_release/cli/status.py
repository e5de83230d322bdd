"""`gshf-release status RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import json_option, print_json, show


@click.command(name="status")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def command(run: Path, as_json: bool) -> None:
    """Show which stages of RUN are finished and how long each took. Never locks; safe beside a running process.

    Below stands where the time went: loop efficiency is the share that was sampling, scoring or training.

    For the parent that `train --seeds` made, show each of its seeds.

    \b
    Example:
      gshf-release status runs/quickstart
    """
    from gshf_release.run.directory import seed_runs

    seeds = seed_runs(run)
    found = {folder: _status(folder) for folder in seeds.values() or [run]}
    if as_json:
        merged = {"seeds": {str(seed): found[folder] for seed, folder in seeds.items()}}
        print_json(merged if seeds else found[run])
        return
    for folder, one in found.items():
        if seeds:
            show(f"{folder}:")
        _show(one, folder)


def _status(run: Path) -> dict[str, Any]:
    """Return name, tasks, seconds and efficiency of one run."""
    from gshf_release.planning import efficiency
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
    total = sum(float(row["seconds"] or 0.0) for row in rows)
    return {
        "name": recipe.name,
        "tasks": rows,
        "seconds": round(total, 1),
        "efficiency": efficiency.as_json(efficiency.measure_efficiency(directory.journal(), directory.plan)),
    }


def _show(found: dict[str, Any], run: Path) -> None:
    from gshf_release.planning import efficiency
    from gshf_release.run.directory import RunDirectory

    rows = found["tasks"]
    for row in rows:
        took = f"{row['seconds']:8.1f} s" if row["seconds"] is not None else " " * 10
        show(f"{row['state']:9} {took}  {row['task']}")
    finished = sum(row["state"] == "finished" for row in rows)
    show(f"{finished} of {len(rows)} tasks finished, {found['seconds'] / 60:.1f} minutes of work.")
    directory = RunDirectory.open(run)
    for line in efficiency.efficiency_lines(efficiency.measure_efficiency(directory.journal(), directory.plan)):
        show(line)
