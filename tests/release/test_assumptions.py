"""Assumptions: marked lines of a recipe file, which follow the run onto its cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.data import assets
from gshf_release.errors import RunError
from gshf_release.recipe import Recipe, load
from gshf_release.recipe.profile import Profile
from gshf_release.release import assumptions
from gshf_release.release.assumptions import Assumption
from gshf_release.run.directory import RunDirectory

TEXT = """\
# A recipe; `# assumption` marks what is not stated.
name: small
seed: 0  # assumption: not stated
base:
  # assumption: the older of two,
  # because the newer is not here
  model: some/model
prompts:
  system: "Be brief. # assumption: none"  # assumption: nobody says
  # only a remark
  roles: {validation: 8, test: 4}  # assumption
loop: {iterations: 2}
"""
FOUND = [
    Assumption("seed", 0, "not stated"),
    Assumption("base.model", "some/model", "the older of two, because the newer is not here"),
    Assumption("prompts.system", "Be brief. # assumption: none", "nobody says"),
    Assumption("prompts.roles", {"validation": 8, "test": 4}, "no reason given"),
]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def recipe(**changes: Any) -> Recipe:
    content = {"name": "small", "base": {"model": "some/model"}, "reward": {"model": "a/b"}}
    content |= {"prompts": {"system": "Be brief. # assumption: none"}}
    content |= {"evaluation": {"second_scorer": {"model": "a/c"}}}
    return Recipe.model_validate(content | changes)


def test_marks_behind_values_and_above_them_are_read(recipe_file: Path) -> None:
    assert assumptions.read(recipe_file) == FOUND


def test_a_mark_inside_a_text_is_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nprompts:\n  system: |\n    one  # assumption: two\n    # assumption: three\nseed: 1\n")
    assert assumptions.read(path) == []


def test_an_override_takes_its_assumption_away(recipe_file: Path) -> None:
    found = assumptions.holding(assumptions.read(recipe_file), recipe(seed=3))
    assert [entry.key for entry in found] == ["base.model", "prompts.system", "prompts.roles"]


def test_a_run_keeps_them_when_it_goes_on_from_its_own_recipe(recipe_file: Path, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", recipe(), Profile())
    assert assumptions.load(run, recipe()) == []
    assumptions.record(run, recipe_file)
    assumptions.record(run, run.path / "recipe.yaml")
    assert assumptions.load(run, recipe()) == FOUND


def test_a_damaged_file_is_named(recipe_file: Path, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", recipe(), Profile())
    (run.path / assumptions.FILE).write_text('{"assumptions": [{}]}', encoding="utf-8")
    with pytest.raises(RunError, match=r"assumptions\.json is damaged"):
        assumptions.load(run, recipe())


def test_every_mark_of_the_published_recipe_is_read_and_holds() -> None:
    path = assets.find("fsfairx-zephyr-7b", "training/recipes", ".yaml")
    found = assumptions.read(path)
    assert len(found) == path.read_text(encoding="utf-8").count("# assumption:") >= 10
    assert assumptions.holding(found, load(str(path))) == found
