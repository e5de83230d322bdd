"""The profile's training processes at tasks of one stage: started once, they do one task after the other."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Self

from gshf_release.errors import Interrupted, RunError
from gshf_release.profile import Profile
from gshf_release.run import interrupt, launch
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Task

POLL_SECONDS = 0.05


class Processes:
    """Runs until its last task is finished; used in a `with` statement, which ends what is left of it."""

    def __init__(self, run: RunDirectory, profile: Profile, held: Mapping[Task, int]) -> None:
        """Start the processes.

        Args:
            run: The run.
            profile: How many processes, and where.
            held: The tasks of one stage in order, with the descriptors of their locks, which the launcher holds too.

        Raises:
            RunError: There are not the machines that the profile asks for.
        """
        self._run, self._last, self._asked = run, list(held)[-1], False
        for task in held:
            run.manifest_path(task).unlink(missing_ok=True)  # the next one will say that the task has ended
        self._stop = run.stop_file(next(iter(held)))
        self._stop.unlink(missing_ok=True)
        command = launch.command(list(held), run, profile, os.environ)
        self._complaint: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=self._complaint,
            pass_fds=tuple(held.values()),
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._complaint.close()

    def finish(self, task: Task) -> None:
        """Wait until a task is finished, with the last one until the processes have ended.

        Raises:
            RunError: The processes failed at it.
            Interrupted: This process was asked to stop; what trains has saved.
        """
        while self._process.poll() is None and (task is self._last or self._run.manifest(task) is None):
            if interrupt.requested() and not self._asked:
                self._stop.touch()  # torchrun answers a signal by killing its processes after 30 seconds
                self._asked = True
            time.sleep(POLL_SECONDS)
        code = self._process.returncode
        if task is not self._last and self._run.manifest(task) is not None:
            return
        if code == Interrupted.exit_code or self._asked:
            raise Interrupted("Stopped on request.")
        if code != 0:
            self._complaint.seek(0)
            why = launch.complaint(self._complaint.read().strip().splitlines(), code)
            raise RunError(f"The worker of {task.label} failed: {why}", hint="Run the same command to try again.")
