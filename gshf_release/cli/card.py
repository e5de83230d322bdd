"""`gshf-release card RUN`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="card")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--iteration", type=int, help="Which iteration's card [the final one].")
def command(run: Path, iteration: int | None) -> None:
    """Print the model card of RUN: as published, or as far as its results go.

    \b
    Example:
      gshf-release card runs/quickstart > CARD.md
    """
    from gshf_release.release.card import Card, Facts, render
    from gshf_release.release.stages import final_iteration, recipe_up_to, released_card, visible
    from gshf_release.results import read_cells
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    recipe = directory.recipe
    number = iteration or final_iteration(directory)
    if not 1 <= number <= recipe.loop.iterations:
        raise click.BadParameter(f"{number} is not between 1 and {recipe.loop.iterations}", param_hint="--iteration")
    published = released_card(directory, number)
    if published is not None:
        click.echo(published, nl=False)
        return
    results = run / "results.json"
    card = Card(
        recipe=recipe_up_to(recipe, number),
        repository=recipe.release.repository or recipe.name,
        iteration=number,
        cells=visible(read_cells(results), number) if results.is_file() else [],
        facts=Facts.load(recipe.release.facts),
    )
    click.echo(render(card), nl=False)
