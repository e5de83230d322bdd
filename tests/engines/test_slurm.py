"""The shipped batch script under a real Slurm, on two machines that reach nothing but each other."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from gshf_release.data import assets
from gshf_release.data.records import Pair
from gshf_release.recipe import profile as profiles
from gshf_release.run.directory import RunDirectory, read_json
from tests import tiny
from tests.conftest import REPOSITORY
from tests.run.work import wait
from tests.servers.hub import HubServer
from tests.servers.machines import Machines, lacking
from tests.servers.slurm import PROGRAMS, Slurm

pytestmark = pytest.mark.engines
LACKING = lacking(PROGRAMS)
HERE: dict[str, Any] = {
    "device": "cpu",
    "engine": "transformers",
    "inference_precision": "fp32",
    "processes": 1,
    "replicas": 1,
    "sharding": "none",
    "micro_batch_pairs": 1,
    "threads": 1,
}
"""What the profile `slurm` is changed in; two machines stay."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if LACKING:
        pytest.skip(f"no Slurm of two machines here: {LACKING} (Debian's slurm-wlm and munge)")
    folder = tmp_path_factory.mktemp("slurm")
    with Machines(folder, ["first", "second"]) as machines, Slurm(machines, folder) as started:
        yield started


@pytest.fixture(scope="module")
def project(slurm: Slurm, tiny_folder: Path, hub_server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose recipe has its base on a Hub that only this machine reaches, and whose models are prefetched."""
    folder = tmp_path_factory.mktemp("project")
    hub_server.reset()
    api = HfApi(endpoint=hub_server.endpoint, token=hub_server.write_token)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        api.create_repo("tester/base")
        api.upload_folder(repo_id="tester/base", folder_path=tiny_folder / "tiny")
    training = {"batch_pairs": 2, "epochs": 3, "learning_rate": 0.001, "precision": "fp32", "checkpoint_every": 1}
    changes = {"base": {"model": "tester/base"}, "loop": {"iterations": 1}, "training": training}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tiny.recipe(tiny_folder, **changes)), encoding="utf-8")
    profile = yaml.safe_load(assets.find("slurm", "training/profiles", ".yaml").read_text(encoding="utf-8")) | HERE
    (folder / assets.MARKER).touch()
    (folder / "training" / "profiles").mkdir(parents=True)
    (folder / "training" / "profiles" / "slurm.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    slurm.environment |= {**hub_server.environment, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    slurm.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    gshf_release(slurm, folder, "prefetch", "recipe.yaml")
    return folder


def test_a_job_of_two_machines_without_a_network_gives_the_losses_and_pairs_of_one_process(
    slurm: Slurm, project: Path
) -> None:
    """The job is stopped in the middle of its training, goes back into the queue, and on from its checkpoint."""
    script = REPOSITORY / "training" / "profiles" / "slurm.sbatch"
    job = slurm.call(
        "sbatch", "--parsable", "--output=job.log", str(script), "recipe.yaml", "--run", "two", cwd=project
    )
    scratch = project / "two" / "iteration-1" / "policy" / ".scratch"
    log = project / "job.log"
    ended = ("COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", "TIMEOUT")

    def state() -> str:
        return slurm.job(job)["JobState"]

    wait(lambda: any(scratch.glob("checkpoint-*/complete")) or state() in ended, seconds=300)
    assert state() == "RUNNING", log.read_text(encoding="utf-8")
    assert slurm.job(job)["NumNodes"] == "2"
    assert slurm.job(job)["NumCPUs"] == str(2 * len(os.sched_getaffinity(0))), "all cores of both"
    slurm.call("scancel", "--batch", "--signal=TERM", job)  # what --signal=B:TERM@600 does when the time is nearly up
    wait(lambda: slurm.job(job)["Restarts"] == "1" or state() in ended, seconds=120)
    wait(lambda: state() in ended, seconds=300)
    assert (state(), slurm.job(job)["Restarts"]) == ("COMPLETED", "1"), log.read_text(encoding="utf-8")

    gshf_release(slurm, project, "train", "recipe.yaml", "--run", "one", profile=alone(project))
    two, one = (RunDirectory.open(project / name) for name in ("two", "one"))
    steps, expected = (read_json(run.path / "iteration-1/policy/training.json")["steps"] for run in (two, one))
    assert [step["loss"] for step in steps] == pytest.approx([step["loss"] for step in expected], abs=1e-4)
    pairs, same = (Pair.read(run.path / "iteration-1/pairs/pairs.parquet") for run in (two, one))
    assert [pair.chosen_ids for pair in pairs] == [pair.chosen_ids for pair in same]
    for stage in ("rewards/shard-000", "reference", "policy"):
        assert read_json(two.path / "iteration-1" / stage / "manifest.json")["world_size"] == 2, stage
    trained = [entry for entry in two.journal() if entry["event"] == "training"]
    assert trained[0]["resumed_at"] == 0
    assert trained[-1]["resumed_at"] > 0
    assert "tester/base" in json.dumps(read_json(two.path / "base" / "source.json"))


def test_a_job_of_another_size_says_so(slurm: Slurm, project: Path) -> None:
    script = REPOSITORY / "training" / "profiles" / "slurm.sbatch"
    words = ("--parsable", "--nodes=1", "--output=small.log", str(script), "recipe.yaml", "--run", "small")
    job = slurm.call("sbatch", *words, cwd=project)
    wait(lambda: slurm.job(job)["JobState"] in ("COMPLETED", "FAILED"), seconds=300)
    assert "trains on 2 machines; Slurm job" in (project / "small.log").read_text(encoding="utf-8")
    assert slurm.job(job)["ExitCode"] == "1:0"


def test_what_runs_on_other_machines_ends_with_the_command_that_started_it(slurm: Slurm, tmp_path: Path) -> None:
    lifeline = f"{[sys.executable, '-m', 'gshf_release.run.lifeline']} + [str(os.getpid())]"
    lines = (
        f"subprocess.Popen({lifeline} + {['srun', '--nodes=2', 'sleep', '1000']})",
        "open('pid', 'w').write(str(os.getpid()))",
        "time.sleep(1000)",
    )
    code = "import os, subprocess, time; " + "; ".join(lines)
    (tmp_path / "job.sh").write_text(
        f"#!/bin/bash\n{shlex.join([sys.executable, '-c', code])}\nsleep 1000\n", encoding="utf-8"
    )
    job = slurm.call("sbatch", "--parsable", "--nodes=2", "--output=out", str(tmp_path / "job.sh"), cwd=tmp_path)

    def sleeping() -> list[int]:
        return [len([one for one in slurm.machines.processes(name) if asleep(one)]) for name in slurm.machines.names]

    wait(lambda: sleeping() == [1, 1])
    os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), signal.SIGKILL)
    wait(lambda: sleeping() == [1, 0], seconds=30)  # the first machine has the batch script's own now
    assert slurm.job(job)["JobState"] == "RUNNING"
    slurm.call("scancel", job)


def asleep(process: int) -> bool:
    """Return whether a process is a `sleep`."""
    path = Path(f"/proc/{process}/comm")
    return path.exists() and path.read_text(encoding="utf-8").strip() == "sleep"


def alone(project: Path) -> str:
    """Return a profile like the job's, of one process."""
    path = project / "alone.yaml"
    changed = profiles.load(str(project / "training" / "profiles" / "slurm.yaml")).model_copy(update={"nodes": 1})
    path.write_text(changed.model_dump_json(), encoding="utf-8")
    return str(path)


def gshf_release(slurm: Slurm, folder: Path, *words: str, profile: str = "") -> None:
    """Run a command of ours on this machine."""
    command = ["gshf-release", *words, *(["--profile", profile] if profile else [])]
    result = subprocess.run(command, cwd=folder, env=slurm.environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
