"""A shipped profile for eight GPUs, on two CPU cores: every path that it takes, with two of each where it has eight."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Sample
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe import profile as profiles
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import SilentObserver
from tests import tiny

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        not (importlib.util.find_spec("deepspeed") and importlib.util.find_spec("ray")),
        reason="DeepSpeed and Ray are not installed: pip install 'gshf-release[cluster]'",
    ),
]
HERE: dict[str, Any] = {
    "device": "cpu",
    "stages": "worker",
    "processes": 2,
    "replicas": 2,
    "threads": 1,
    "sampling_batch": 8,
    "micro_batch_pairs": 1,
    "vllm": profiles.Vllm(compile=False, cpu_cache_gb=1, context_tokens=256),
}
"""What changes here; copies of vLLM, sharding, BF16, activation checkpointing and a process for each stage stay."""


def test_an_iteration_by_the_profile_of_eight_gpus(tiny_folder: Path, tmp_path: Path) -> None:
    training = {"batch_pairs": 4, "learning_rate": 0.001, "precision": "bf16"}
    content = tiny.recipe(tiny_folder, loop={"iterations": 1}, training=training)
    recipe = parse(Recipe, content, "tiny")
    profile = profiles.load("8-gpu-zero3").model_copy(update=HERE)
    assert (profile.engine, profile.sharding, profile.activation_checkpointing) == ("vllm", "zero-3", True)
    run = RunDirectory.create(tmp_path / "run", recipe, profile)
    pipeline.train(run, recipe, profile, allow_redo=False, observer=SilentObserver())
    first = run.path / "iteration-1"
    for stage in ("rewards/shard-000", "reference", "policy"):
        assert read_json(first / stage / "manifest.json")["world_size"] == 2, stage
    steps = read_json(first / "policy" / "training.json")["steps"]
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=2e-2), "policy and reference are one, but for BF16 arithmetic"
    samples = Sample.read(*first.glob("samples/shard-*/samples.parquet"))
    assert len(samples) == recipe.prompts.roles.per_iteration * recipe.sampling.n
    assert {entry["engine"] for entry in run.journal() if entry["event"] == "engine started"} == {"vllm"}
