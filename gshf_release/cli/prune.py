"""`gshf-release prune RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json, show, size


@click.command(name="prune")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@json_option
def command(run: Path, dry_run: bool, as_json: bool) -> None:
    """Remove the FP32 weights and optimiser states of RUN that its recipe does not keep (`loop.keep`).

    Weights go only when nothing unfinished reads them. Hashes and numbers stay, so the run still verifies.

    \b
    Example:
      gshf-release prune runs/quickstart --dry-run
    """
    from gshf_release.release.retention import prune_run, superfluous
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    paths = superfluous(directory)
    freed = sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())
    if not dry_run:
        freed = prune_run(directory)
    if as_json:
        print_json({"removed": [directory.relative(path) for path in paths], "bytes": freed, "dry_run": dry_run})
        return
    for path in paths:
        show(directory.relative(path))
    show(f"{size(freed)} {'would be freed' if dry_run else 'freed'}.")
