"""`gshf-release adopt FOLDER...`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json, show, shown_path


@click.command(name="adopt")
@click.argument("sources", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", required=True, type=click.Path(path_type=Path), help="The run directory to make.")
@click.option("--name", help="What the run is called [the name of its folder].")
@json_option
def command(sources: tuple[Path, ...], run: Path, name: str | None, as_json: bool) -> None:
    """Make a run of what other tools left behind: checkpoints, preference data, benchmark outputs and judgments.

    Known are Hugging Face checkpoints, RLHFlow and SimPO preference data, prompts and conversations, alpaca_eval outputs and
    annotations, FastChat answers and judgments. Rows of no known kind are kept too, with the reason. The provenance of
    everything is marked as unknown.

    \b
    Example:
      gshf-release adopt outputs/checkpoint-500 data/pairs.jsonl results/alpaca_eval --run runs/adopted
    """
    from gshf_release.adoption.run import adopt_files

    found = adopt_files(sources, run, name or run.resolve().name)
    if as_json:
        print_json([{"stage": one.stage, "kind": one.kind, "rows": one.rows, "rest": one.rest} for one in found])
        return
    for one in found:
        text = one.kind if one.kind == "checkpoint" else f"{one.rows} rows ({one.kind}), {one.rest} of no known kind"
        show(f"{shown_path(run / one.stage)}  {text}")
