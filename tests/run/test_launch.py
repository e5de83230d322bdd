"""Which command starts the processes of a task, for every profile that ships."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gshf_release.errors import RecipeError, RunError
from gshf_release.recipe import parse
from gshf_release.recipe import profile as profiles
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage, Task
from tests.conftest import REPOSITORY
from tests.run.work import wait

RUN = RunDirectory(Path("runs/x"))
POLICY = Stage("iteration-1/policy", "work", distributed=True)
TASKS = [Task(POLICY)]
WORKER = ["-m", "gshf_release.run.worker", "runs/x", "iteration-1/policy", "0"]
TORCHRUN = ["-m", "gshf_release.run.torchrun", "--nproc-per-node"]
SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "first"}


@pytest.mark.parametrize("name", ["laptop", "one-24gb", "one-80gb"])
def test_one_process_needs_no_launcher(name: str) -> None:
    assert not launch.distributed(POLICY, profiles.load(name))


@pytest.mark.parametrize("name", ["8-gpu-zero3", "fsdp"])
def test_eight_processes_of_one_machine_are_started_by_torchrun(name: str) -> None:
    profile = profiles.load(name)
    assert profile.world_size == 8
    assert launch.command(TASKS, RUN, profile, {}) == [sys.executable, *TORCHRUN, "8", "--standalone", *WORKER]


def test_several_machines_are_reached_through_srun() -> None:
    profile = profiles.load("slurm")
    assert profile.world_size == 16
    assert launch.command(TASKS, RUN, profile, SLURM) == [
        *(sys.executable, "-m", "gshf_release.run.lifeline", str(os.getpid())),
        *("srun", "--ntasks-per-node", "1", "--cpu-bind=none", "--kill-on-bad-exit=1", "--nodes", "2"),
        *(sys.executable, *TORCHRUN, "8", "--nnodes", "2", "--rdzv-id", "77-iteration-1-policy"),
        *("--master-addr", "first", "--master-port", "20077"),
        *WORKER,
    ]


def test_jobs_that_share_a_machine_meet_at_ports_of_their_own() -> None:
    """Within 20,000 to 32,767: Linux gives out those above by itself."""
    ports = {job: port(job) for job in (1, 2, 12_767, 12_768, 4_294_967_295)}
    assert ports == {1: "20001", 2: "20002", 12_767: "32767", 12_768: "20000", 4_294_967_295: "23615"}


def port(job: int) -> str:
    """Return where the machines of a job meet."""
    command = launch.command(TASKS, RUN, profiles.load("slurm"), SLURM | {"SLURM_JOB_ID": str(job)})
    return command[command.index("--master-port") + 1]


def test_a_stage_that_does_not_train_runs_in_one_process() -> None:
    assert launch.distributed(POLICY, profiles.load("slurm"))
    assert not launch.distributed(Stage("iteration-1/exploration", "work"), profiles.load("slurm"))


def test_one_command_does_all_shards() -> None:
    rewards = Stage("iteration-1/rewards", "work", shards=3, distributed=True)
    command = launch.command([Task(rewards, 0), Task(rewards, 2)], RUN, Profile(processes=2), {})
    assert command[-5:] == ["gshf_release.run.worker", "runs/x", "iteration-1/rewards", "0", "2"]


def test_several_machines_outside_slurm_are_one_line() -> None:
    with pytest.raises(RunError, match="'slurm' trains on 2 machines, which needs an allocation of Slurm"):
        launch.command(TASKS, RUN, profiles.load("slurm"), {})


def test_an_allocation_of_another_size_is_one_line() -> None:
    with pytest.raises(RunError, match="trains on 2 machines; Slurm job 77 has 3"):
        launch.command(TASKS, RUN, profiles.load("slurm"), SLURM | {"SLURM_JOB_NUM_NODES": "3"})


def test_sharding_needs_somebody_to_share_with() -> None:
    with pytest.raises(RecipeError, match="sharding 'fsdp' needs more than one of processes or nodes"):
        parse(Profile, {"sharding": "fsdp"}, "profile")


def test_another_world_size_names_both_numbers() -> None:
    launch.require_world_size(Profile(processes=2), 2)
    with pytest.raises(RunError, match=r"asks for 2 training processes \(1 x 2\), but 1 came together"):
        launch.require_world_size(Profile(processes=2), 1)


def test_a_cluster_that_sets_rank_for_everybody_is_not_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv(launch.TORCHRUN, raising=False)
    assert (launch.rank(), launch.world_size()) == (0, 1)
    monkeypatch.setenv(launch.TORCHRUN, "x")
    assert (launch.rank(), launch.world_size()) == (1, 2)


def test_what_a_process_raised_is_found_among_the_launcher_s_lines() -> None:
    noise = ["W1122 torch/distributed: Sending process 5 closing signal", "torch.distributed.elastic: ChildFailedError"]
    assert launch.complaint([noise[0], "[rank1]: ValueError: no", noise[1]], 1) == "[rank1]: ValueError: no"
    assert launch.complaint(["Exception ignored in: <function>", "MemoryError"], 1) == "MemoryError"
    assert launch.complaint([], 9) == "exit code 9"


def test_a_process_that_dies_without_a_word_is_named_by_its_signal() -> None:
    lines = [
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "[1]:",
        "  traceback : Signal 15 (SIGTERM) received by PID 7",
        "Root Cause (first observed failure):",
        "  traceback : Signal 6 (SIGABRT) received by PID 8",
        "=====",
    ]
    assert launch.complaint(lines, 1) == "Signal 6 (SIGABRT) received by PID 8"
    said = "terminate called without an active exception"
    assert launch.complaint([said, *lines], 1) == f"Signal 6 (SIGABRT) received by PID 8: {said}"
    assert launch.complaint(lines[:1], 1) == lines[0]


def root_cause(exit_code: int, text: str) -> list[str]:
    """Return what torchrun prints when a process has failed."""
    return [
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "Failures:",
        "  traceback : Signal 9 (SIGKILL) received by PID 7",
        launch.ROOT_CAUSE,
        f"  exitcode  : {exit_code} (pid: 8)",
        f"  traceback : {text}",
        "=====",
    ]


LOST = "[rank1]: RuntimeError: Connection closed by peer"
NO_WORD = "To enable traceback see: https://pytorch.org"


def test_others_that_failed_or_were_killed_because_one_was_interrupted_are_no_error() -> None:
    stopped = root_cause(130, NO_WORD)
    assert launch.complaint([launch.STOPPED, LOST, *stopped], 1) == launch.STOPPED
    assert launch.complaint(["RuntimeError: handled by somebody", launch.STOPPED, *stopped], 1) == launch.STOPPED
    assert launch.complaint([launch.STOPPED, LOST], 1) == launch.STOPPED
    assert launch.complaint([launch.STOPPED, LOST, *root_cause(1, NO_WORD)], 1) == launch.STOPPED
    assert launch.complaint([launch.STOPPED, *root_cause(-15, "Signal 15 (SIGTERM) received by PID 8")], 1) == (
        launch.STOPPED
    )


def test_one_that_stopped_because_another_failed_does_not_hide_it() -> None:
    assert launch.complaint(["MemoryError", launch.STOPPED, *root_cause(1, NO_WORD)], 1) == "MemoryError"
    assert launch.complaint([launch.STOPPED, *root_cause(-9, "Signal 9 (SIGKILL) received by PID 8")], 1) == (
        "Signal 9 (SIGKILL) received by PID 8"
    )
    for name in (
        "pyarrow.lib.ArrowInvalid: broken",
        "KeyboardInterrupt",
        "triton.runtime.errors.OutOfResources: memory",
    ):
        traceback = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', name]
        told = [f"[rank1]: {line}" for line in traceback]
        for lines in (traceback, told):
            assert launch.complaint([*lines, launch.STOPPED, *root_cause(1, NO_WORD)], 1) == lines[-1]
    assert launch.complaint([launch.STOPPED, *root_cause(7, NO_WORD)], 1) == "exit code 7"
    both = root_cause(1, NO_WORD) + root_cause(130, NO_WORD)
    assert launch.complaint(["MemoryError", launch.STOPPED, *both], 1) == "MemoryError", "of two machines"


def sbatch(folder: Path, train: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the batch script as Slurm does, with stand-ins for the two commands that it calls."""
    calls = folder / "calls"
    for name, body in {"gshf-release": train, "scontrol": ""}.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\necho {name} "$@" $HF_HUB_OFFLINE >> {calls}\n{body}\n', encoding="utf-8")
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    script = REPOSITORY / "training" / "profiles" / "slurm.sbatch"
    return subprocess.Popen(["bash", str(script), "quickstart", "--run", "x"], env=environment), calls


def test_the_batch_script_runs_the_same_command_offline(tmp_path: Path) -> None:
    process, calls = sbatch(tmp_path, "exit 3")
    assert process.wait(timeout=120) == 3
    assert calls.read_text(encoding="utf-8") == "gshf-release train --profile slurm quickstart --run x 1\n"


def test_the_batch_script_goes_back_into_the_queue_when_it_is_stopped(tmp_path: Path) -> None:
    saving = (
        f"trap 'sleep 0.3; echo saved >> {tmp_path / 'calls'}; exit 130' TERM\n"
        f"touch {tmp_path / 'ready'}; while :; do sleep 0.05; done"
    )
    process, calls = sbatch(tmp_path, saving)
    wait((tmp_path / "ready").exists)
    wait(lambda: catches_sigterm(process.pid))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    assert calls.read_text(encoding="utf-8").splitlines()[1:] == ["saved", "scontrol requeue 77 1"]


def catches_sigterm(pid: int) -> bool:
    """Return whether a process has set what it does at SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (caught,) = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
