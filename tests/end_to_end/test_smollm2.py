"""The whole path on the quickstart's real model, at the smallest sizes: prefetch, train, eval, publish, verify.

The reward models are tiny random ones: what is tested is the path, not that anything is learned.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from gshf_release.data import assets
from gshf_release.models import checkpoints
from gshf_release.recipe import read_mapping
from tests import tiny

ROLES = {"per_iteration": 6, "validation": 3, "test": 3, "reward": 0, "second_scorer": 0}


@pytest.fixture(scope="module")
def recipe_file(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quickstart = read_mapping(assets.find("quickstart", "training/recipes", ".yaml"))
    folder = tmp_path_factory.mktemp("smollm2")
    for seed, name in ((1, "reward"), (2, "second-scorer")):
        tiny.save_reward_model(folder / name, seed, max_position_embeddings=1024)
    quickstart["prompts"]["roles"] = ROLES
    quickstart["loop"] = {"iterations": 1}
    quickstart["sampling"] = {"n": 2, "max_new_tokens": 16, "prompts_per_shard": 3}
    quickstart["reward"] = {"model": str(folder / "reward")}
    quickstart["evaluation"] = {
        "prompts": None,
        "max_new_tokens": 16,
        "second_scorer": {"model": str(folder / "second-scorer")},
    }
    quickstart["training"] |= {"batch_pairs": 2, "checkpoint_every": 1}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(quickstart), encoding="utf-8")
    return path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gshf_release", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_recipe_to_verified_release(recipe_file: Path) -> None:
    folder = recipe_file.parent
    kill_inside_optimisation(folder)
    trained = command(folder, "train", "recipe.yaml", "--run", "run")
    assert trained.returncode == 0, trained.stderr
    assert "iteration-1: reward" in trained.stderr
    digits = checkpoints.load_tokenizer(folder / "run/base/model").tokenize("1234")
    assert digits == ["1", "2", "3", "4"], "the digit splitting of the original tokenizer is kept"
    evaluated = command(folder, "eval", "run", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    cells = json.loads(evaluated.stdout)["cells"]
    (loss,) = [cell for cell in cells if cell["metric"] == "DPO loss, first step"]
    assert loss["value"] == pytest.approx(0.693147, abs=1e-3)
    published = command(folder, "publish", "run", "--out", "out")
    assert published.returncode == 0, published.stderr
    assert (folder / "out/quickstart-GGUF/main/quickstart-Q8_0.gguf").stat().st_size > 100e6
    verified = command(folder, "verify", "run")
    assert verified.returncode == 0, verified.stderr
    assert "numbers come out as recorded" in verified.stdout
    assert command(folder, "verify", "out/quickstart/iter-1").returncode == 0


def kill_inside_optimisation(folder: Path) -> None:
    """Start training and kill it with SIGKILL as soon as DPO has a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gshf_release", "train", "recipe.yaml", "--run", "run"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 600
    while not list((folder / "run/iteration-1/policy/.scratch").glob("checkpoint-*/complete")):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint within ten minutes"
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
