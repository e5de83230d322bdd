"""A real Slurm on machines of one's own: a controller on this one, and nodes that pretend to have eight GPUs each."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.machines import HEAD, Machines

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
GPUS = 8
START_SECONDS = 60.0


class Slurm:
    """A cluster of all machines, as a context manager."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines, self.folder = machines, folder
        with socket.socket() as free:
            free.bind(("", 0))
            self._port = free.getsockname()[1]
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        for name in ("state", "munge", *(f"spool-{node}" for node in self.machines.names)):
            (self.folder / name).mkdir(mode=0o700)
        for gpu in range(GPUS):
            (self.folder / f"gpu{gpu}").touch()
        (self.folder / "munge" / "key").write_bytes(os.urandom(64))
        (self.folder / "munge" / "key").chmod(0o600)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n", encoding="utf-8")
        (self.folder / "slurm.conf").write_text(self._configuration(), encoding="utf-8")
        munge = self.folder / "munge"
        files = {name: str(munge / name) for name in ("socket", "key", "pid", "log", "seed")}
        self._start(
            HEAD,
            *("munged", "--foreground", "--force", f"--socket={files['socket']}", f"--key-file={files['key']}"),
            *(f"--pid-file={files['pid']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}"),
        )
        _wait(Path(files["socket"]).exists)
        self._start(HEAD, "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        for node in self.machines.names:
            self.boot(node)
        _wait(lambda: self._states() == {"idle"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing of it outlives the machines."""
        self.call("scancel", "--user", "root")

    def boot(self, node: str) -> None:
        """Let a machine join."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """Return what a command of Slurm prints."""
        return subprocess.run(
            words, env=self.environment, cwd=cwd, check=True, capture_output=True, text=True
        ).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Return what Slurm knows of a job, such as `JobState` and `Restarts`."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _start(self, machine: str, *words: str) -> None:
        log = self.folder / f"{words[0]}-{machine}.out"
        self.machines.start(machine, words, log, self.environment)

    def _states(self) -> set[str]:
        try:
            return set(self.call("sinfo", "--noheader", "--Node", "--format=%T").split())
        except subprocess.CalledProcessError:
            return set()

    def _configuration(self) -> str:
        cores, nodes = len(os.sched_getaffinity(0)), ",".join(self.machines.names)
        lines: Sequence[str] = (
            "ClusterName=test",
            f"SlurmctldHost={HEAD}({self.machines.address(HEAD)})",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge/socket,cred_expire=5",  # a requeued job waits until its credential expires
            "SlurmUser=root",
            "SlurmdUser=root",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPort={self._port}",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdLogFile={self.folder}/slurmd-%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "MpiDefault=none",
            "GresTypes=gpu",
            "ReturnToService=2",
            "SchedulerParameters=sched_interval=1",
            *(
                f"NodeName={node} NodeAddr={self.machines.address(node)} NodeHostname={node} Gres=gpu:{GPUS}"
                f" CPUs={cores} Sockets=1 CoresPerSocket={cores} ThreadsPerCore=1 RealMemory=4000"
                for node in self.machines.names
            ),
            f"PartitionName=all Nodes={nodes} Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100",
        )
        return "\n".join(lines) + "\n"


def _wait(done: object) -> None:
    assert callable(done)
    end = time.monotonic() + START_SECONDS
    while not done():
        assert time.monotonic() < end, "Slurm did not start"
        time.sleep(0.2)
