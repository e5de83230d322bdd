"""`gshf-release verify RUN|FOLDER`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json


@click.command(name="verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--hashes-only", is_flag=True, help="Do not recompute the numbers.")
@click.option("--lineage", is_flag=True, help="Also trace every trained response back to the policy that drew it.")
@json_option
def command(path: Path, hashes_only: bool, lineage: bool, as_json: bool) -> None:
    """Recompute every hash and every number of a run, or every hash of a release folder. Exit code 3 if one differs.

    \b
    Examples:
      gshf-release verify runs/quickstart
      gshf-release verify runs/quickstart --lineage
      gshf-release verify release-out/quickstart/iter-3
    """
    from gshf_release.errors import VerificationError
    from gshf_release.release import manifest
    from gshf_release.release.lineage import verify_lineage
    from gshf_release.release.verify import verify_run
    from gshf_release.run.directory import DOCUMENT, RunDirectory

    if not path.exists():
        raise VerificationError(f"{path} does not exist.")
    traced: dict[str, int] = {}
    if (path / DOCUMENT).is_file():
        run = RunDirectory.open(path)
        files, numbers, unfinished = verify_run(run, hashes_only=hashes_only)
        traced = verify_lineage(run)._asdict() if lineage else {}
    elif lineage:
        raise VerificationError(f"{path} is no run directory; only a run holds the responses it was trained on.")
    elif (path / manifest.NAME).is_file():
        files, numbers, unfinished = manifest.verify(path), 0, 0
    else:
        raise VerificationError(f"{path} is neither a run directory nor a release folder with a {manifest.NAME}.")
    if as_json:
        print_json({"files": files, "numbers": numbers, "unfinished": unfinished, **traced})
        return
    text = f"{files} files have their recorded sha256"
    if numbers:
        text += f"; {numbers} numbers come out as recorded"
    if unfinished:
        text += f"; {unfinished} stages are not finished"
    click.echo(f"{text}.")
    if traced:
        outside = "no external responses" if not traced["external"] else f"{traced['external']} external pairs"
        click.echo(
            f"{traced['trained']} trained rows come from {traced['responses']} responses of the run's own policies; {outside}."
        )
