"""Rewards, log-ratios and reference log-probabilities that two processes computed together. Gloo, FP32, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release import loop, pipeline
from gshf_release.profile import Profile
from gshf_release.recipe import Recipe, parse
from gshf_release.records import LogRatio, ReferenceLogProbability, Score
from gshf_release.run import launch
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from tests import tiny

DIVIDED: dict[str, tuple[str, type[Any]]] = {
    "iteration-1/rewards": ("scores.parquet", Score),
    "iteration-1/log-ratios": ("log-ratios.parquet", LogRatio),
    "iteration-1/reference": ("reference.parquet", ReferenceLogProbability),
}
GOAL = (
    "base",
    "prompts/pool",
    "iteration-1/prompts",
    "reward/model",
    "iteration-1/samples",
    *DIVIDED,
    "iteration-1/pairs",
)
ALONE = Profile(inference_precision="fp32", threads=1, scoring_batch=3)
"""Five prompts with four responses each are seven batches: one process computes four of them, the other three."""


def recipe(folder: Path, reward: dict[str, Any]) -> Recipe:
    content = tiny.recipe(folder, reward=reward, loop={"iterations": 1}, pairs={"kl_weight": 0.1})
    content["prompts"]["roles"] |= {"per_iteration": 5}
    content["sampling"] |= {"n": 4, "prompts_per_shard": 8}
    return parse(Recipe, content, "tiny")


def computed(chosen: Recipe, path: Path, profile: Profile) -> RunDirectory:
    """Run everything up to what is divided."""
    stages = pipeline.build(chosen).stages
    run = RunDirectory.create(path, chosen, profile)
    execute(stages, run, chosen, profile, goal=[stage for stage in stages if stage.name in GOAL])
    return run


@pytest.mark.slow
def test_two_processes_compute_the_very_values_of_one(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, {"model": str(tiny_folder / "reward")})
    one = computed(chosen, tmp_path / "one", ALONE)
    two = computed(chosen, tmp_path / "two", ALONE.model_copy(update={"processes": 2}))
    for stage, (file, kind) in DIVIDED.items():
        rows = kind.read(two.path / stage / file)
        assert len(rows) > 3, "more than one batch"
        assert rows == kind.read(one.path / stage / file)
        assert [read_json(run.path / stage / "manifest.json")["world_size"] for run in (one, two)] == [1, 2]


def test_a_users_function_is_called_by_one_process(tiny_folder: Path) -> None:
    for reward, divided in (({"model": str(tiny_folder / "reward")}, True), ({"model": "python:mine:score"}, False)):
        stages = {stage.name: stage for stage in loop.declare(recipe(tiny_folder, reward))}
        assert launch.distributed(stages["iteration-1/rewards"], Profile(processes=2)) is divided
