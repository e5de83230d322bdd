"""`gshf-release card RUN` and `gshf-release card --reported NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release.cli.terminal import say, show, shown_path, stale_line


@click.command(name="card")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--iteration", type=int, help="Which iteration's card [the final one].")
@click.option("--reported", metavar="NAME", help="Of a published model, from reported facts alone; no run is needed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --reported: the file to write, with its figure.",
)
def command(run: Path | None, iteration: int | None, reported: str | None, out: Path | None) -> None:
    """Print the model card of RUN, as published or as far as its results go, or that of a published model.

    \b
    Examples:
      gshf-release card runs/quickstart > CARD.md
      gshf-release card --reported fsfairx-zephyr-7b
      gshf-release card --reported fsfairx-zephyr-7b --out model_cards/examples/fsfairx-zephyr-7b.md
    """
    if (run is None) == (reported is None):
        raise click.UsageError("Name either a RUN or --reported NAME.")
    if run is None:
        if iteration is not None:
            raise click.UsageError("--iteration belongs to a RUN.")
        _reported(str(reported), out)
        return
    if out is not None:
        raise click.UsageError("--out belongs to --reported.")
    show(_of_run(run, iteration), nl=False)


def _reported(name: str, out: Path | None) -> None:
    from gshf_release.release.card import render_reported

    if out is None:
        show(render_reported(name), nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_reported(name, out.parent / "assets" / f"{out.stem}.png"), encoding="utf-8")
    say(f"Card: {shown_path(out)}")


def _of_run(run: Path, iteration: int | None) -> str:
    from gshf_release.data.results import read_cells
    from gshf_release.release import assumptions, card_templates
    from gshf_release.release.card import left_out, render_card
    from gshf_release.release.card_data import Card
    from gshf_release.release.facts import Facts
    from gshf_release.release.rules import require_own
    from gshf_release.release.stages import final_iteration, recipe_up_to, released_card, require_training, visible
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    require_own(directory)
    require_training(directory)
    number = iteration or final_iteration(directory)
    if not 1 <= number <= directory.recipe.loop.iterations:
        raise click.BadParameter(
            f"{number} is not between 1 and {directory.recipe.loop.iterations}", param_hint="--iteration"
        )
    notices = stale_line(directory)
    published = released_card(directory, number)
    if published is not None and not notices:
        return published
    for line in notices:
        say(line)
    results, recipe = run / "results.json", recipe_up_to(directory.recipe, number)
    facts = Facts.of_run(recipe.release.facts, directory)
    if told := left_out(facts, recipe, recipe.release.repository or ""):
        say(told)
    card = Card(
        recipe=recipe,
        repository=recipe.release.repository or recipe.name,
        iteration=number,
        cells=visible(read_cells(results), number) if results.is_file() else [],
        facts=facts,
        assumptions=assumptions.load(directory, recipe),
        templates=card_templates.kept_card_templates(directory),
        notices=tuple(notices),
    )
    return render_card(card)
