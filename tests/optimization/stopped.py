"""Nine steps of training in one process or several: stopped after a checkpoint, or in the arithmetic of GPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from gshf_release.recipe.profile import Profile
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.stage import Task
from tests.conftest import REPOSITORY
from tests.optimization.plan import EXACT, finish, recipe, stages
from tests.run.plans import Heard
from tests.run.work import alive, wait

POLICY = Path("iteration-1") / "policy"
NINE_STEPS = {"batch_pairs": 4, "epochs": 6}


def profile(processes: int, sharding: str = "none", **more: Any) -> Profile:
    """Return the profile of so many processes, each with one pair at a time."""
    changed = {"processes": processes, "sharding": sharding, "micro_batch_pairs": 1} | more
    return EXACT.model_copy(update=changed)


class Outcome(NamedTuple):
    """What a finished training put out."""

    losses: list[float]
    weights: dict[str, Any]


def unbroken(path: Path, folder: Path) -> Outcome:
    """Return what one process that nobody stopped has after nine steps."""
    run = RunDirectory.create(path, recipe(folder, **NINE_STEPS), profile(1))
    finish(run, run.recipe, run.profile)
    return outcome(run)


def outcome(run: RunDirectory) -> Outcome:
    """Return what a finished run's training put out."""
    return Outcome(losses(run), weights(run.path / POLICY / "model"))


def weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint or adapter."""
    (path,) = folder.glob("*.safetensors")
    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def stopped(path: Path, folder: Path, where: Profile) -> RunDirectory:
    """Return a run of nine steps whose command was killed once it had a checkpoint."""
    run = RunDirectory.create(path, recipe(folder, **NINE_STEPS), where)
    kill_after_a_checkpoint(run)
    return run


def kill_after_a_checkpoint(run: RunDirectory) -> None:
    """Begin a run in a command that is killed in the middle of its training, at the third try at the latest."""
    for _ in range(3):
        ranks = begin_and_kill(run)
        if run.manifest(Task(stages(run.recipe)[-1])) is None:
            assert run.profile.world_size == 1 or len(ranks) >= run.profile.world_size
            return
        shutil.rmtree(run.path / POLICY)  # the kill came too late
    raise AssertionError("never killed before the end")


def begin_and_kill(run: RunDirectory) -> list[int]:
    """Begin a run in a command that is killed when it has a checkpoint; return its training processes, which are gone too."""
    command = [sys.executable, "-m", "tests.optimization.plan", str(run.path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scratch = run.path / POLICY / ".scratch"
    wait(lambda: any(scratch.glob("checkpoint-*/complete")) or process.poll() is not None, seconds=600)
    launcher = descendants(process.pid)
    ranks = [pid for one in launcher for pid in descendants(one)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait(lambda: not any(alive(pid) for pid in (*launcher, *ranks)))
    return ranks


def gone_on(run: RunDirectory, where: Profile) -> tuple[Outcome, list[str]]:
    """Finish a run under a profile, which really divides it so; return what came out and what the user was told."""
    heard = Heard()
    finish(run, run.recipe, where, observer=heard)
    assert read_json(run.path / POLICY / "training.json")["distribution"] == CheckpointLayout.of(where)._asdict()
    return outcome(run), heard.notices


def losses(run: RunDirectory, policy: Path = POLICY) -> list[float]:
    """Return the loss of every optimiser step."""
    return [step["loss"] for step in read_json(run.path / policy / "training.json")["steps"]]


def begun_at(run: RunDirectory) -> list[int]:
    """Return the step at which each attempt at the training began."""
    return [entry["resumed_at"] for entry in run.journal() if entry["event"] == "training"]


def assert_goes_on(run: RunDirectory, where: Profile, expected: Outcome) -> None:
    """Finish a stopped run, from its checkpoint, to the losses and weights of one that was not stopped."""
    found, told = gone_on(run, where)
    assert told == []
    assert begun_at(run)[0] == 0
    assert begun_at(run)[-1] >= 1, "it went on from a checkpoint"
    assert_same(found, expected)


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Compare two trainings. Another number of processes adds up in another order: by 6e-8 and 5e-7 when this was written."""
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)
    for name, weight in expected.weights.items():
        assert found.weights[name] == pytest.approx(weight, rel=0, abs=1e-5), name


def assert_begins_again(run: RunDirectory, where: Profile, expected: Outcome, why: str) -> None:
    """Finish a stopped run whose checkpoint does not fit: it says so, and comes to the same losses."""
    found, told = gone_on(run, where)
    assert told == [
        f"iteration-1/policy: {why}; the stage begins again, and the checkpoint is kept until it is finished."
    ]
    assert begun_at(run)[-1] == 0
    assert_same(found, expected)


def assert_mixed_precision_agrees(sharding: str, folder: Path, path: Path, *, within: float) -> None:
    """Train as the profiles for GPUs do, in BF16 arithmetic and with activations computed again: in two processes as in one.

    One process of FP32 tells that the arithmetic was another.
    """
    found = {}
    for name, where, precision in (
        ("two", profile(2, sharding, activation_checkpointing=True), "bf16"),
        ("one", profile(1, activation_checkpointing=True), "bf16"),
        ("exact", profile(1), "fp32"),
    ):
        run = RunDirectory.create(path / name, recipe(folder, **NINE_STEPS, precision=precision), where)
        finish(run, run.recipe, where)
        found[name] = losses(run)
    assert found["two"] == pytest.approx(found["one"], abs=within)
    assert found["two"] != pytest.approx(found["exact"], abs=1e-5)


def descendants(parent: int) -> list[int]:
    """Return the processes that a process started, and that still run."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii") if alive(parent) else ""
    return [int(pid) for pid in text.split()]
