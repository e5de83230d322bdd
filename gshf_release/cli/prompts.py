"""`gshf-release prompts RECIPE` and `gshf-release prompts --instructions COUNT`."""

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
@click.argument("recipe", required=False)
@click.option(
    "--instructions",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Write COUNT prompts that state rules which a program can check, into --out; no model, no RECIPE.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file for --instructions (JSONL).")
@click.option(
    "--rules",
    default="training",
    show_default=True,
    metavar="training|held-out|instructions|python:MODULE:NAME",
    help="Which kinds of rules --instructions states.",
)
@click.option("--rules-each", type=click.IntRange(min=1), default=2, show_default=True, help="Rules in one prompt.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draws of --instructions."
)
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
    recipe: str | None,
    instructions: int | None,
    out: Path | None,
    rules: str,
    rules_each: int,
    seed: int,
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

    With --instructions it writes prompts for a reward of rules (`reward.checks`) instead.

    The writer is RECIPE's base model in this process, or `served:NAME` at a server; its key comes from OPENAI_API_KEY. The same
    command again goes on after a kill and comes to the same prompts.

    \b
    Examples:
      gshf-release prompts quickstart --set prompts.augmentation.target=500
      gshf-release prompts my-recipe.yaml --server https://api.openai.com/v1 \\
        --set prompts.augmentation.writer.model=served:gpt-4o-mini
      gshf-release prompts --instructions 2000 --out my-prompts.jsonl
    """
    if (instructions is None) == (recipe is None):
        raise click.UsageError("Give a RECIPE, or --instructions COUNT.")
    if instructions is not None:
        if out is None:
            raise click.UsageError("--instructions needs --out FILE.")
        _write_instructions(instructions, out, rules, rules_each, seed, as_json)
    else:
        _write_with_model(str(recipe), profile, run_path, overrides, on_bad_row, server, data, allow_redo, as_json)


def _write_instructions(count: int, out: Path, rules: str, rules_each: int, seed: int, as_json: bool) -> None:
    from gshf_release.prompts.instruction_prompts import instruction_prompts, write_prompts
    from gshf_release.rewards.instruction_checks import rules_to_write

    prompts = instruction_prompts(count, seed, rules_to_write(rules), rules_each=rules_each)
    write_prompts(prompts, out)
    if as_json:
        print_json({"prompts": len(prompts), "file": str(out)})
        return
    say(f"{len(prompts)} prompts in {shown_path(out)}, the first: {prompts[0]}")
    say(f"Next: gshf-release train RECIPE --set prompts.source={shown_path(out)} --set reward.checks=instructions")


def _write_with_model(
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
