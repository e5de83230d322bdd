"""Numbers of another recipe than the run's are told, with the key and both values, whatever stopped the redo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.recipe import Recipe
from gshf_release.recipe.differences import differences
from gshf_release.run import staleness
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Stage
from tests.run.plans import PROFILES, begin, recipe
from tests.run.work import stage

HERE = PROFILES["here"]
COUNT = "tests.run.work:count"


def with_beta(beta: float, **changes: Any) -> Recipe:
    return recipe(training={"beta": beta}, **changes)


def graph(policy: str = "write", n: int = 8) -> list[Stage]:
    """A policy trained with beta on n samples a prompt, its number, and one of a stage that is no business of it."""
    return [
        stage("samples", parameters={"n": n}),
        stage("policy", "samples", work=policy, keys=("training.beta",)),
        stage("score", "policy", numbers=COUNT),
        stage("scorer", numbers=COUNT, keys=("seed",)),
    ]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has finished with beta 0.1."""
    run = begin(tmp_path / "run", with_beta(0.1))
    execute(graph("fail_once"), run, with_beta(0.1), HERE)
    return run


def line(run: RunDirectory) -> str:
    found = staleness.find(run)
    return "" if found is None else found.line


def test_numbers_of_the_runs_own_recipe_are_not_stale(run: RunDirectory) -> None:
    assert staleness.find(run) is None
    execute(graph("fail_once"), run, with_beta(0.1, release={"repository": "me/model"}), HERE)
    assert staleness.find(run) is None, "no number depends on where it is published"


def test_a_redo_that_was_stopped_leaves_old_numbers_and_they_are_told(run: RunDirectory) -> None:
    (run.path / "broken").touch()
    with pytest.raises(ZeroDivisionError):
        execute(graph("fail_once"), run, with_beta(0.3), HERE)
    assert line(run) == (
        "Stale: numbers were made with training.beta 0.1; the recipe now says 0.3: those of score. "
        "The others are newer; do not compare the two."
    )
    (run.path / "broken").unlink()
    execute(graph("fail_once"), run, with_beta(0.3), HERE)
    assert line(run) == ""


def test_training_done_again_and_evaluation_not_is_told_from_the_journal(run: RunDirectory) -> None:
    stages = graph("fail_once")
    execute(stages, run, with_beta(0.3), HERE, goal=stages[:2])
    assert line(run).startswith(
        "Stale: numbers were made with training.beta 0.1; the recipe now says 0.3: those of score."
    )
    execute(stages, run, with_beta(0.3), HERE)
    assert line(run) == ""


def test_a_recipe_that_goes_there_and_back_names_nothing(run: RunDirectory) -> None:
    stages = graph("fail_once")
    execute(stages, run, with_beta(0.3), HERE, goal=stages[:2])
    execute(stages, run, with_beta(0.1), HERE, goal=stages[:2])
    assert line(run) == "", "the same policy came out again"


def test_several_keys_are_listed_with_both_values(run: RunDirectory) -> None:
    stages = graph("fail_once", n=4)
    changed = with_beta(0.3, sampling={"n": 4})
    execute(stages, run, changed, HERE, goal=stages[:1])
    told = line(run)
    assert "training.beta 0.1" in told
    assert "sampling.n 8" in told
    assert "the recipe now says" in told
    assert "sampling.n 4" in told
    assert "training.beta 0.3" in told


def test_when_all_numbers_are_stale_the_line_is_short(run: RunDirectory) -> None:
    changed = recipe(training={"beta": 0.1}, seed=7)
    stages = [*graph("fail_once")[:2], stage("score", "policy", numbers=COUNT, keys=("seed",)), graph()[3]]
    execute(stages, run, with_beta(0.1), HERE)
    run.record_recipe(changed)  # by hand
    assert line(run) == "Stale: the numbers were made with seed 0; the recipe now says 7."


def test_a_stage_declared_otherwise_is_named_when_no_key_is_known(run: RunDirectory) -> None:
    stages = graph("fail_once", n=4)
    execute(stages, run, with_beta(0.1), HERE, goal=stages[:1])
    assert line(run).startswith("Stale: numbers were made before policy was changed or begun again: those of score.")


def test_differences_are_the_leaves() -> None:
    then = {"a": {"b": 1, "c": [1]}, "d": None}
    assert differences(then, {"a": {"b": 2, "c": [1]}, "d": None}) == {"a.b": (1, 2)}
    assert differences(then, {"a": {"b": 1, "c": [1, 2]}, "e": 3}) == {"a.c": ([1], [1, 2]), "e": (None, 3)}
    assert differences({"a": {"b": 1}}, {"a": None}) == {"a": ({"b": 1}, None)}
