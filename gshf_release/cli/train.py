"""`gshf-release train RECIPE`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gshf_release.cli.terminal import (
    Terminal,
    default_run,
    json_option,
    print_json,
    profile_option,
    say,
    show,
    shown_path,
)

if TYPE_CHECKING:
    from gshf_release.planning.plan import Plan
    from gshf_release.recipe import Recipe
    from gshf_release.recipe.profile import Profile


@click.command(name="train")
@click.argument("recipe")
@profile_option
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run directory [runs/<recipe.name>].")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe key, e.g. sampling.n=8."
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["fail", "skip"]),
    help="A bad row in your data stops the run, or is skipped and counted (prompts.on_bad_row).",
)
@click.option("--seeds", help="Train once per seed, e.g. 0,1,2, in runs/<name>/seed-<k>.")
@click.option(
    "--eval",
    "evaluation",
    is_flag=True,
    help="Evaluate on the test prompts too; with parallel_workers, while the next iteration samples. For benchmarks: eval.",
)
@click.option(
    "--plan",
    "plan_only",
    is_flag=True,
    help="Show the stages, what the run would take and what is missing here; do nothing.",
)
@click.option(
    "--allow-redo", is_flag=True, help="Redo finished work that a changed recipe affects, even if it is much."
)
@json_option
def command(
    recipe: str,
    profile: str,
    run_path: Path | None,
    overrides: tuple[str, ...],
    on_bad_row: str | None,
    seeds: str | None,
    evaluation: bool,
    plan_only: bool,
    allow_redo: bool,
    as_json: bool,
) -> None:
    """Run the loop of RECIPE (a name in training/recipes, or a YAML file). The same command again resumes.

    \b
    Examples:
      gshf-release train quickstart
      gshf-release train quickstart --set loop.iterations=4
      gshf-release train fsfairx-zephyr-7b --profile one-80gb --plan
      gshf-release train my-recipe.yaml --profile one-80gb --run runs/second-try
    """
    from gshf_release import recipe as recipes
    from gshf_release.models.checkpoints import prepare
    from gshf_release.recipe import profile as profiles
    from gshf_release.report.seeds import write_merged

    if on_bad_row is not None:
        overrides = (*overrides, f"prompts.on_bad_row={on_bad_row}")
    chosen = recipes.load(recipe, overrides)
    where = profiles.load(profile)
    path = run_path or default_run(chosen.name)
    runs = {path: chosen}
    if seeds is not None:
        runs = {path / f"seed-{seed}": chosen.model_copy(update={"seed": seed}) for seed in _seeds(seeds)}
    if plan_only:
        _show_plan(runs, where, as_json)
        return
    _refuse_what_cannot_fit(runs, where)
    prepare(where)
    for folder, one in runs.items():
        _train(one, where, folder, allow_redo, recipe, evaluation)
    if seeds is not None:
        write_merged(path)
        say(f"Over seeds: {shown_path(path / 'results.json')}, results.csv, results.md")
    say(
        f"Next: gshf-release {'report' if evaluation and not chosen.evaluation.benchmarks else 'eval'} {shown_path(path)}"
    )
    if as_json:
        print_json({"runs": [str(folder) for folder in runs]})


def _train(recipe: Recipe, profile: Profile, path: Path, allow_redo: bool, reference: str, evaluation: bool) -> None:
    from gshf_release import pipeline
    from gshf_release.data import assets
    from gshf_release.release import assumptions
    from gshf_release.report.seeds import refresh
    from gshf_release.run.directory import RunDirectory

    pipeline.build(recipe, RunDirectory(path))
    run = RunDirectory.create(path, recipe, profile)
    assumptions.record(run, assets.find(reference, "training/recipes", ".yaml"))
    pipeline.train(run, recipe, profile, allow_redo=allow_redo, observer=Terminal(run), evaluation=evaluation)
    refresh(path)
    say(f"Run: {shown_path(path)}")


def _refuse_what_cannot_fit(runs: dict[Path, Recipe], profile: Profile) -> None:
    """Stop before anything runs if a device is certainly too small, or the base cannot be used or released as asked.

    Raises:
        RunError: A device is too small.
        CheckpointError: A chat template cannot be used.
        ReleaseError: A format of `release` cannot be made of the base.
    """
    from gshf_release.planning import plan as planning

    for number, (path, recipe) in enumerate(runs.items()):
        plan = planning.make_plan(recipe, profile, path)
        _require_fit(plan, recipe)
        for check in plan.checks if number == 0 else []:  # the same for every seed
            if check.warning:
                say(f"Warning: {check.what}: {check.found}.")


def _require_fit(plan: Plan, recipe: Recipe) -> None:
    from gshf_release.errors import CheckpointError, ReleaseError, RunError

    wrong = next((check for check in plan.checks if not check.ok), None)
    if wrong is not None:
        raise CheckpointError(wrong.found)
    if plan.unreleasable:
        raise ReleaseError(plan.unreleasable)
    if plan.refusal:
        adapter = (
            ""
            if recipe.training.adapter
            else "Set training.adapter (for example training.adapter.rank=64 with training.learning_rate=5.0e-6), or take"
        )
        raise RunError(plan.refusal, hint=f"{adapter or 'Take'} a device with more memory, or a smaller base.")


def _seeds(text: str) -> list[int]:
    """Return the seeds in a text such as `0,1,2`.

    Raises:
        RecipeError: It is no such list, a seed is negative, or one comes twice.
    """
    from gshf_release.errors import RecipeError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise RecipeError(f"--seeds {text!r} is not a list of whole numbers from 0 on.", hint="Example: --seeds 0,1,2")
    seeds = [int(part) for part in parts]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise RecipeError(f"--seeds {text!r} names the seed {twice} twice.", hint="Example: --seeds 0,1,2")
    return seeds


def _show_plan(runs: dict[Path, Recipe], profile: Profile, as_json: bool) -> None:
    """Print what the runs would take.

    Raises:
        RunError: It cannot fit.
        CheckpointError: A chat template cannot be used.
        ReleaseError: A format of `release` cannot be made of the base.
    """
    from gshf_release.planning import plan as planning

    plans = {path: planning.make_plan(recipe, profile, path) for path, recipe in runs.items()}
    if as_json:
        rows = [{"run": str(path), **task} for path, plan in plans.items() for task in plan.tasks]
        print_json({"plan": rows, "runs": {str(path): asdict(plan) for path, plan in plans.items()}})
    else:
        for path, plan in plans.items():
            where = f"{path}: " if len(plans) > 1 else ""
            for line in [*planning.stage_lines(plan, where), "", *planning.plan_lines(plan)]:
                show(line)
    for path, plan in plans.items():
        _require_fit(plan, runs[path])
