"""`gshf-release prompts RECIPE`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gshf_release.cli.terminal import (
    Terminal,
    data_option,
    json_option,
    print_json,
    print_table,
    profile_option,
    say,
    shown_path,
)


@click.command(name="prompts")
@click.argument("recipe")
@profile_option
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run directory [runs/<recipe.name>-prompts].")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, e.g. prompts.augmentation.target=500.",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["fail", "skip"]),
    help="A bad row in your seeds or other prompts stops it, or is skipped (prompts.on_bad_row).",
)
@click.option("--server", metavar="ADDRESS", help="Chat-completions server, e.g. https://api.openai.com/v1.")
@data_option
@click.option("--allow-redo", is_flag=True, help="Decide anew although much is finished; known answers are used again.")
@json_option
def command(
    recipe: str,
    profile: str,
    run_path: Path | None,
    overrides: tuple[str, ...],
    on_bad_row: str | None,
    server: str | None,
    data: Path | None,
    allow_redo: bool,
    as_json: bool,
) -> None:
    """Let a model write the prompts that RECIPE trains on: self-instruct, rule filters, exact ROUGE-L, decontamination.

    The writer is RECIPE's base model in this process, or `served:NAME` at a server; its key comes from OPENAI_API_KEY. The same
    command again goes on after a kill and comes to the same prompts.

    \b
    Examples:
      gshf-release prompts quickstart --set prompts.augmentation.target=500
      gshf-release prompts my-recipe.yaml --server https://api.openai.com/v1 \\
        --set prompts.augmentation.writer.model=served:gpt-4o-mini
    """
    from gshf_release import recipe as recipes
    from gshf_release.models.checkpoints import prepare
    from gshf_release.prompts import benchmark_files
    from gshf_release.prompts.writers import SERVED, writer_model
    from gshf_release.recipe import profile as profiles
    from gshf_release.release import prompt_set
    from gshf_release.run.directory import RunDirectory

    if on_bad_row is not None:
        overrides = (*overrides, f"prompts.on_bad_row={on_bad_row}")
    chosen = recipes.load(recipe, overrides)
    where = profiles.load(profile)
    if server is not None:
        where = profiles.with_server(where, server)
    if data is not None:
        os.environ[benchmark_files.VARIABLE] = str(data.resolve())  # stages and workers look there
    if not writer_model(chosen)[0].startswith(SERVED):
        prepare(where)
    path = run_path or Path("runs") / f"{chosen.name}-prompts"
    run = RunDirectory.create(path, chosen, where)
    prompt_set.make_prompt_set(run, chosen, where, allow_redo=allow_redo, observer=Terminal(run))
    _report(path, recipe, as_json)


def _report(path: Path, recipe: str, as_json: bool) -> None:
    from gshf_release.data.results import read_cells
    from gshf_release.release import prompt_set
    from gshf_release.report.tables import prompt_table
    from gshf_release.run.directory import RunDirectory

    cells = read_cells(path / "results.json")
    folder = path / prompt_set.STAGE
    speed = throughput(RunDirectory(path).journal())
    if as_json:
        files = {"jsonl": str(folder / prompt_set.JSON_LINES), "dataset": str(folder / prompt_set.FOLDER)}
        print_json({"cells": [cell.model_dump() for cell in cells], **files, **speed})
        return
    print_table(prompt_table(cells))
    if speed["seconds"]:
        rate = f"{speed['prompts_a_minute']:.1f} prompts a minute, {speed['tokens_a_second']:.0f} tokens a second"
        say(f"{speed['seconds']:.1f} s of writing: {rate}.")
    source = shown_path(folder / prompt_set.JSON_LINES)
    say(
        f"Data set: {shown_path(folder / prompt_set.FOLDER)}\nNext: gshf-release train {recipe} --set prompts.source={source}"
    )


def throughput(journal: list[dict[str, object]]) -> dict[str, float]:
    """Return seconds of writing over all attempts, accepted prompts a minute and written tokens a second."""
    rounds = [entry for entry in journal if entry["event"] == "round"]
    total = {key: sum(float(str(entry[key])) for entry in rounds) for key in ("seconds", "kept", "tokens")}
    seconds = max(total["seconds"], 1e-9)
    return {
        "seconds": total["seconds"],
        "prompts_a_minute": round(60 * total["kept"] / seconds, 2) if rounds else 0.0,
        "tokens_a_second": round(total["tokens"] / seconds, 2) if rounds else 0.0,
    }
