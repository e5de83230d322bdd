"""Scores, log-ratios and reference log-probabilities that two processes computed together. Gloo, FP32, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release import loop, pipeline
from gshf_release.data.records import LogRatio, ReferenceLogProbability, Score
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Task, tasks
from tests import tiny

DIVIDED: dict[str, tuple[str, type[Any]]] = {
    "iteration-1/rewards": ("scores.parquet", Score),
    "iteration-1/log-ratios": ("log-ratios.parquet", LogRatio),
    "iteration-1/reference": ("reference.parquet", ReferenceLogProbability),
    "base/test/second-scorer-scores": ("scores.parquet", Score),
}
GOAL = (
    "base",
    "prompts/pool",
    "iteration-1/prompts",
    "reward/model",
    "iteration-1/samples",
    *DIVIDED,
    "iteration-1/pairs",
    "second-scorer/model",
    "prompts/test",
    "base/test/answers",
)
ALONE = Profile(inference_precision="fp32", threads=1, scoring_batch=3)
"""Five prompts with four responses each, in two shards, are four batches and three: one process computes two of the three."""


def recipe(folder: Path, reward: dict[str, Any]) -> Recipe:
    content = tiny.recipe(folder, reward=reward, loop={"iterations": 1}, pairs={"kl_weight": 0.1})
    content["prompts"]["roles"] |= {"per_iteration": 5, "test": 5}
    content["sampling"] |= {"n": 4, "prompts_per_shard": 3}
    return parse(Recipe, content, "tiny")


def computed(chosen: Recipe, path: Path, profile: Profile) -> RunDirectory:
    """Run everything up to what is divided."""
    stages = pipeline.build(chosen).stages
    run = RunDirectory.create(path, chosen, profile)
    execute(stages, run, chosen, profile, goal=[stage for stage in stages if stage.name in GOAL])
    return run


@pytest.mark.slow
def test_two_processes_started_once_a_stage_compute_the_very_values_of_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    command = launch.command

    def noted(tasks: list[Task], *rest: Any) -> list[str]:
        launched.append([task.label for task in tasks])
        return command(tasks, *rest)

    monkeypatch.setattr(launch, "command", noted)
    chosen = recipe(tiny_folder, {"model": str(tiny_folder / "reward")})
    one = computed(chosen, tmp_path / "one", ALONE)
    two = computed(chosen, tmp_path / "two", ALONE.model_copy(update={"processes": 2}))
    divided = [stage for stage in pipeline.build(chosen).stages if stage.name in DIVIDED]
    assert sorted(launched) == sorted([task.label for task in tasks([stage])] for stage in divided)
    for stage in divided:
        file, kind = DIVIDED[stage.name]
        for task in tasks([stage]):
            rows = kind.read(two.folder(task) / file)
            assert len(rows) > 3, "more than one batch"
            assert rows == kind.read(one.folder(task) / file)
            worlds = [read_json(run.manifest_path(task))["world_size"] for run in (one, two)]
            assert worlds == [1, 2]


def test_a_users_function_is_called_by_one_process(tiny_folder: Path) -> None:
    for reward, divided in (({"model": str(tiny_folder / "reward")}, True), ({"model": "python:mine:score"}, False)):
        stages = {stage.name: stage for stage in loop.declare_loop(recipe(tiny_folder, reward))}
        assert launch.distributed(stages["iteration-1/rewards"], Profile(processes=2)) is divided
