"""What a killed attempt left in its scratch folder serves only another attempt at the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Parameters, Stage

RECIPE = {"name": "scratch", "base": {"model": "m"}, "reward": {"model": "r"}}
RECIPE["evaluation"] = {"second_scorer": {"model": "s"}}


class KilledError(Exception):
    """Stands for a kill in the middle of the work."""


class Attempt(Parameters):
    """Say whether it dies."""

    die: bool


def leave(context: StageContext) -> None:
    """Leave a checkpoint and die at the first attempt; put out what was found at the second."""
    found = context.scratch / "checkpoint"
    if context.parameters(Attempt).die:
        found.write_text("half-way", encoding="utf-8")
        raise KilledError
    context.output("found.txt").write_text(str(found.exists()), encoding="utf-8")


def attempt(run: RunDirectory, recipe: Recipe, *, die: bool) -> None:
    stage = Stage(
        "work", f"{__name__}:leave", outputs=("found.txt",), keys=("sampling.n",), parameters=Attempt(die=die).as_json()
    )
    execute([stage], run, recipe, Profile())


def test_a_checkpoint_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(RECIPE)
    run = RunDirectory.create(tmp_path / "run", recipe, Profile())
    with pytest.raises(KilledError):
        attempt(run, recipe, die=True)
    assert (run.path / "work/.scratch/checkpoint").exists()
    attempt(run, recipe, die=False)  # another declaration: another fingerprint
    assert (run.path / "work/found.txt").read_text(encoding="utf-8") == "False"


def test_a_checkpoint_of_the_same_recipe_is_kept(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(RECIPE)
    run = RunDirectory.create(tmp_path / "run", recipe, Profile())
    for _ in range(2):
        with pytest.raises(KilledError):
            attempt(run, recipe, die=True)
        assert (run.path / "work/.scratch/checkpoint").exists()


def test_scratch_of_a_finished_task_is_removed_by_the_next_command(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(RECIPE)
    run = RunDirectory.create(tmp_path / "run", recipe, Profile())
    attempt(run, recipe, die=False)
    left = run.path / "work/.scratch/checkpoint"  # as a kill after the manifest leaves it
    left.parent.mkdir()
    left.write_text("whole way", encoding="utf-8")
    attempt(run, recipe, die=False)
    assert not left.parent.exists()
