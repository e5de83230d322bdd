"""Launch training processes: torchrun on this machine, or torchrun on every machine of a Slurm job.

The caller starts the command and holds the tasks' locks; every process runs `gshf_release.run.worker`, and the one of rank 0
alone writes outputs, manifest and journal.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from gshf_release.errors import Interrupted, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage, Task

STOPPED = f"Interrupted: {interrupt.MESSAGE}"
"""The line of a process that was asked to stop, in what `complaint` reads."""
TORCHRUN_ERROR = "torch.distributed.elastic."
ROOT_CAUSE = "Root Cause (first observed failure):"
"""Begins what torchrun says of the process that failed first; it ends the others, and lists them too."""
LAST_WORDS = ("terminate called", "Fatal Python error")
"""Begin the line that C++ or Python leaves of a process that it aborts."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""The variable that tells torchrun's processes from those of a cluster that sets RANK for everybody."""
PORTS = range(20_000, 32_768)
"""Where the machines of a job meet: one of these, below those that Linux gives out by itself."""
SRUN = ("srun", "--ntasks-per-node", "1", "--cpu-bind=none", "--kill-on-bad-exit=1")
"""One torchrun a machine, which shares its cores among its processes: Slurm would bind it, as one task, to one of them."""


def distributed(stage: Stage, profile: Profile) -> bool:
    """Return whether the tasks of a stage run in several processes at once."""
    return stage.distributed and profile.world_size > 1


def command(tasks: Sequence[Task], run: RunDirectory, profile: Profile, environment: Mapping[str, str]) -> list[str]:
    """Return the command that runs tasks of one stage, one after the other, in the profile's training processes.

    Args:
        tasks: What.
        run: Its run; on several machines it must lie on a file system that they share.
        profile: How many processes and machines.
        environment: Slurm's variables are read from it where there are several machines.

    Raises:
        RunError: Several machines are wanted outside a Slurm job, or the job has another number of them.
    """
    name = tasks[0].stage.name
    work = ["gshf_release.run.worker", str(run.path), name, *(str(task.shard) for task in tasks)]
    return torchrun(work, name, profile, environment)


def torchrun(work: Sequence[str], name: str, profile: Profile, environment: Mapping[str, str]) -> list[str]:
    """Return the command that runs a module in the profile's training processes.

    Args:
        work: The module and its arguments.
        name: Of the work, by which machines find each other.
        profile: As above.
        environment: As above.

    Raises:
        RunError: As above.
    """
    started = [sys.executable, "-m", "gshf_release.run.torchrun", "--nproc-per-node", str(profile.processes)]
    if profile.nodes == 1:
        return [*started, "--standalone", "-m", *work]
    job, head, port = _slurm_job(profile, environment)
    word = re.sub(r"[^a-z0-9]+", "-", name)
    machines = ["--nnodes", str(profile.nodes), "--rdzv-id", f"{job}-{word}"]
    meeting = ["--master-addr", head, "--master-port", port]
    srun = [sys.executable, "-m", "gshf_release.run.lifeline", str(os.getpid()), *SRUN, "--nodes", str(profile.nodes)]
    return [*srun, *started, *machines, *meeting, "-m", *work]


def world_size() -> int:
    """Return how many processes torchrun says that work on this task; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if TORCHRUN in os.environ else 1


def rank() -> int:
    """Return this process's number among them."""
    return int(os.environ["RANK"]) if TORCHRUN in os.environ else 0


def require_world_size(profile: Profile, found: int) -> None:
    """Check how many processes really train together: launchers have been seen to start one where two were asked for.

    Raises:
        RunError: Another number than the profile's.
    """
    if found != profile.world_size:
        raise RunError(
            f"The profile {profile.name!r} asks for {profile.world_size} training processes "
            f"({profile.nodes} x {profile.processes}), but {found} came together.",
            hint="Let `gshf-release train` start them, or set processes to what there is.",
        )


def end(code: int) -> NoReturn:
    """End this process; one of several ends at once, without taking the interpreter apart.

    Taking it apart has been seen to abort the process (SIGABRT), after all work was done, while a thread of torch still held a
    tensor of the last exchange.
    """
    if world_size() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def complaint(lines: Sequence[str], code: int) -> str:
    """Return the one line of failed workers' stderr that says why: the first, as others may fail or stop because of it."""
    causes = [text.partition("\n====")[0] for text in "\n".join(lines).split(ROOT_CAUSE)[1:]]  # one for each torchrun
    codes = [int(found[1]) for cause in causes if (found := re.search(r"exitcode\s*:\s*(-?\d+)", cause))]
    signals = [found[1].strip() for cause in causes if (found := re.search(r"traceback : (Signal .*)", cause))]
    raised = [line for line in _raised(lines) if not line.startswith(TORCHRUN_ERROR)]
    if codes and set(codes) == {Interrupted.exit_code}:
        return STOPPED
    if raised and raised[0] != STOPPED:
        return raised[0]
    if killed := [text for text in signals if "SIGTERM" not in text]:
        return ": ".join([killed[0], *[line for line in lines if line.startswith(LAST_WORDS)][:1]])
    ended = [one for one in codes if one not in (Interrupted.exit_code, -signal.SIGTERM)]
    if ended and set(raised) <= {STOPPED}:  # without a word; one that lost it while all stopped would have said so
        return f"exit code {ended[0]}"
    return [*raised[:1], *signals[:1], *lines[-1:], f"exit code {code}"][0]


def _raised(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines that name what was raised: the ends of tracebacks, and what looks like one."""
    within = False
    for line in lines:
        text = re.sub(r"^\[rank\d+\]:\s?", "", line)
        ends = within and text[:1].strip() != "" and text != STOPPED
        if ends or text == STOPPED or re.match(r"[\w.]*(Error|Exception)(:|$)", text):
            yield line
        within = text.startswith("Traceback (") or (within and not ends)


def _slurm_job(profile: Profile, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the job's number, its first machine, and the port where that listens."""
    job, given = environment.get("SLURM_JOB_ID"), environment.get("SLURM_JOB_NUM_NODES")
    if job is None:
        raise RunError(
            f"The profile {profile.name!r} trains on {profile.nodes} machines, which needs an allocation of Slurm.",
            hint="Submit it with sbatch; docs/scale.md has the script.",
        )
    if given != str(profile.nodes):
        raise RunError(
            f"The profile {profile.name!r} trains on {profile.nodes} machines; Slurm job {job} has {given or 'none'}.",
            hint=f"Submit it with: sbatch --nodes {profile.nodes}",
        )
    head = environment.get("SLURMD_NODENAME") or environment.get("HOSTNAME") or "localhost"
    port = PORTS[int(job) % len(PORTS)]  # jobs that share a machine, which run at the same time, have other numbers
    return job, head, str(port)
