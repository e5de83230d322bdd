"""The stand-in scorer learns what can be learned from contrasts, and drops what cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.records import Contrast, ContrastScore
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError, RecipeError
from gshf_release.models import stages as base
from gshf_release.prompts import split
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.rewards.stages import declare_model
from gshf_release.rewards.training import above_chance, check_batches, reward_training_cells
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Parameters, Stage, Task
from tests import tiny
from tests.optimization.plan import EXACT

GOOD, BAD = "the cat sat on a mat", "rain near cup gold banks tea"


def separable(count: int) -> list[Contrast]:
    """Return contrasts that a glance at the words tells apart."""
    return [contrast("cut", f"cut-{n}", GOOD, BAD, held_out=n % 4 == 0) for n in range(count)]


def contradictory(count: int) -> list[Contrast]:
    """Return contrasts of which each occurs in both directions: any scorer is right half of the time."""
    rows = []
    for n in range(count):
        first, second = f"tea is good {n}", f"gold is good {n}"
        rows.append(contrast("missing_words", f"d-{n}", first, second, held_out=n % 4 == 0))
        rows.append(contrast("missing_words", f"d-{n}", second, first, held_out=n % 4 == 0))
    return rows


def contrast(kind: str, prompt: str, better: str, worse: str, *, held_out: bool) -> Contrast:
    return Contrast(prompt, kind, [{"role": "user", "content": f"why {prompt[-1]}"}], better, worse, held_out)


class Rows(Parameters):
    """Name the hand-made contrasts."""

    rows: str


def write_contrasts(context: StageContext) -> None:
    """Write the hand-made contrasts that the parameter names."""
    rows = {"separable": separable(40), "contradictory": contradictory(20)}
    wanted = context.parameters(Rows).rows.split("+")
    Contrast.write([row for name in wanted for row in rows[name]], context.output("contrasts.parquet"))


def train(folder: Path, path: Path, rows: str, profile: Profile = EXACT) -> tuple[RunDirectory, Recipe, list[Stage]]:
    """Train the reward model of the tiny recipe on hand-made contrasts."""
    content = tiny.recipe(folder)
    content["prompts"]["roles"]["reward"] = 8
    contrasts: dict[str, Any] = {
        "kinds": ["cut", "missing_words"],
        "learning_rate": 0.001,
        "epochs": 4,
        "batch_pairs": 8,
        "precision": "fp32",
    }
    chosen = parse(Recipe, content | {"reward": {"contrasts": contrasts}}, "tiny")
    made = Stage(
        "reward/contrasts",
        "tests.rewards.test_training:write_contrasts",
        outputs=("contrasts.parquet",),
        parameters=Rows(rows=rows).as_json(),
    )
    stages = [base.declare_base(chosen), made, declare_model(chosen, "reward")[-1]]
    run = RunDirectory.create(path, chosen, profile)
    execute(stages, run, chosen, profile)
    return run, chosen, stages


@pytest.fixture(scope="module")
def learned(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Recipe, list[Stage]]:
    return train(tiny_folder, tmp_path_factory.mktemp("learned") / "run", "separable+contradictory")


def held_out(run: RunDirectory) -> list[ContrastScore]:
    return ContrastScore.read(run.path / "reward" / "model" / "held-out.parquet")


def test_what_can_be_told_apart_is_learned(learned: Any) -> None:
    scores = held_out(learned[0])
    assert len(scores) == 10
    assert above_chance(scores, "cut")


def test_a_kind_at_chance_is_dropped_and_training_redone_without_it(learned: Any) -> None:
    training = json.loads((learned[0].path / "reward" / "model" / "training.json").read_text(encoding="utf-8"))
    assert training["dropped_kinds"] == ["missing_words"]
    assert training["pairs"] == 30
    assert {score.kind for score in held_out(learned[0])} == {"cut"}


def test_the_loss_falls(learned: Any) -> None:
    training = json.loads((learned[0].path / "reward" / "model" / "training.json").read_text(encoding="utf-8"))
    losses = [step["loss"] for step in training["steps"]]
    assert len(losses) == 15  # 30 pairs, 4 epochs, 8 a step
    assert losses[-1] < 0.5 * losses[0]


def test_accuracies_are_recomputed_from_the_scores(learned: Any) -> None:
    run, chosen, stages = learned
    scores = held_out(run)
    cells = read_cells(run.path / "results.json")
    accuracy = 100 * sum(score.better_score > score.worse_score for score in scores) / len(scores)
    assert find(cells, metric="held-out accuracy: cut").value == pytest.approx(accuracy)  # type: ignore[union-attr]
    assert "missing_words" in find(cells, metric="held-out accuracy: all").note  # type: ignore[union-attr]
    assert reward_training_cells(StageContext(run, chosen, EXACT, Task(stages[-1]), finished=True)) == cells


def test_nothing_to_learn_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The stand-in reward stays at chance on every kind of contrast: missing_words"):
        train(tiny_folder, tmp_path / "run", "contradictory")


@pytest.mark.parametrize(("hits", "expected"), [(8, False), (12, False), (13, True), (16, True)])
def test_above_chance_is_two_standard_errors_of_a_coin(hits: int, expected: bool) -> None:
    # 16 pairs: 0.5 + 2 * sqrt(.25 / 16) = 0.75, so 12 of 16 is not above it.
    scores = [ContrastScore("p", "cut", float(number < hits), 0.5) for number in range(16)]
    assert above_chance(scores, "cut") is expected


def test_no_pairs_are_not_above_chance() -> None:
    assert not above_chance([], "cut")


def test_a_given_reward_model_is_copied_as_it_is(tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", tiny_recipe, EXACT)
    execute(declare_model(tiny_recipe, "reward"), run, tiny_recipe, EXACT)
    copied = run.path / "reward" / "model" / "model" / "model.safetensors"
    assert copied.read_bytes() == (tiny_folder / "reward" / "model.safetensors").read_bytes()


def test_a_trained_stand_in_goes_from_prompts_to_model(tiny_folder: Path) -> None:
    content = tiny.recipe(tiny_folder)
    content["prompts"]["roles"]["reward"] = 8
    chosen = parse(Recipe, content | {"reward": {}}, "tiny")
    names = [stage.name for stage in declare_model(chosen, "reward")]
    assert names == ["reward/answers", "reward/contrasts", "reward/model"]
    assert split.stage_name("reward") in {item.stage for item in declare_model(chosen, "reward")[0].inputs}


@pytest.mark.slow
def test_two_processes_train_the_scorer_of_one(learned: Any, tiny_folder: Path, tmp_path: Path) -> None:
    """They score what was held out together, so both drop the same kind and train again."""
    profile = EXACT.model_copy(update={"processes": 2})
    run, _, _ = train(tiny_folder, tmp_path / "run", "separable+contradictory", profile)
    two, one = (read_json(found.path / "reward" / "model" / "training.json") for found in (run, learned[0]))
    assert two["dropped_kinds"] == one["dropped_kinds"] == ["missing_words"]
    assert [step["loss"] for step in two["steps"]] == pytest.approx([step["loss"] for step in one["steps"]], abs=1e-4)
    assert [step["accuracy"] for step in two["steps"]] == pytest.approx([step["accuracy"] for step in one["steps"]])
    for found, expected in zip(held_out(run), held_out(learned[0]), strict=True):
        assert (found.prompt_id, found.kind) == (expected.prompt_id, expected.kind)
        assert found.better_score == pytest.approx(expected.better_score, abs=1e-3)
        assert found.worse_score == pytest.approx(expected.worse_score, abs=1e-3)
    worlds = [read_json(found.path / "reward" / "model" / "manifest.json")["world_size"] for found in (run, learned[0])]
    assert worlds == [2, 1]


def test_a_batch_that_the_processes_do_not_divide_is_refused_before_anything_runs(learned: Any) -> None:
    with pytest.raises(
        RecipeError, match=r"reward\.contrasts\.batch_pairs 8 is not a multiple of the profile's 3 training"
    ):
        check_batches(learned[1], Profile(processes=3))
