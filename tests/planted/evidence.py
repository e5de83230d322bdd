"""Train SmolLM2 under one planted reward and record the cells: `python -m tests.planted.evidence length`, half an hour or more.

The honest control is the recipe `stand-in-long` with its own reward model and second scorer, of which two runs are kept. The
same command goes on where it was stopped. The recorded cells are what the test suite replays.
"""

from __future__ import annotations

from pathlib import Path

import click

from gshf_release import recipe as recipes
from gshf_release.cli.terminal import Terminal, profile_option, say
from gshf_release.data.results import write_cells
from gshf_release.diagnostics.verdict import diagnose
from gshf_release.models.checkpoints import prepare
from gshf_release.recipe import Recipe
from gshf_release.recipe import profile as profiles
from gshf_release.run.directory import RunDirectory
from tests.planted import rewards
from tests.planted.runs import EXPECTED, cells_of

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
HONEST = ("stand-in-long", ("seed=7",))
OWN: dict[str, tuple[str, ...]] = {"bullet_list": ("training.epochs=8",)}
"""Overrides of one reward: the base's answers to 81 of 96 prompts have equally many list lines, so that 15 pairs are left, two
steps an epoch; after one epoch the policy was still the base, and the verdict rightly said "nothing"."""
READ = ("test", "validation")
"""The tables that a verdict reads."""


@click.command()
@click.argument("reward", type=click.Choice(list(EXPECTED)))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@profile_option
def main(reward: str, runs: Path, overrides: tuple[str, ...], profile: str) -> None:
    """Train and evaluate under the planted REWARD, record the cells, and say whether the verdict names it."""
    recipe = _recipe(reward, overrides)
    where = profiles.load(profile)
    prepare(where)
    if str(recipe.evaluation.second_scorer.model).endswith(":similarity"):
        rewards.similarity(
            [[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]]
        )  # fail early
    run = RunDirectory(runs / reward)
    cells = cells_of(recipe, run.path, where, Terminal(run))
    write_cells([cell for cell in cells if cell.table in READ], RECORDED / f"{reward}.json")
    found = diagnose(cells)
    say(f"{reward}: expected {EXPECTED[reward]!r}, found {found.kind!r}. {found.text}")
    raise SystemExit(0 if found.kind == EXPECTED[reward] else 1)


def _recipe(reward: str, overrides: tuple[str, ...]) -> Recipe:
    if reward == "honest":
        name, own = HONEST
        return recipes.load(name, (*own, *overrides))
    named = (f"name=evidence-{reward.replace('_', '-')}", f"reward.model=python:tests.planted.rewards:{reward}")
    return recipes.load(str(HERE / "evidence.yaml"), (*named, *OWN.get(reward, ()), *overrides))


if __name__ == "__main__":
    main()
