"""Hand tasks to persistent worker processes, and start, reuse and replace them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from gshf_release import environments
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt
from gshf_release.run.context import Progress, Say
from gshf_release.run.directory import RunDirectory
from gshf_release.run.persistent_worker import PersistentWorker, WorkerKilled, stay_of
from gshf_release.run.stage import Stage, Task

ATTEMPTS = 2
"""How many workers may be killed at a task before the command fails: it may be the task that kills them."""


def in_passing_workers(profile: Profile) -> bool:
    """Return whether the work of this environment is done in workers that leave, which gives their memory back."""
    on_gpu = profile.device == "cuda" or (profile.device == "auto" and environments.has_cuda())
    return profile.stages == "worker" or (profile.stages == "auto" and on_gpu)


class WorkerPool:
    """The workers of one command: each is at a task or waits for one, and whoever needs one that is not there starts it.

    Those of this environment stay to the end, unless the profile wants their memory back. Those of another leave with their
    session (`stay_of`): an engine fills the device.
    """

    def __init__(self, run: RunDirectory, profile: Profile, notice: Say) -> None:
        self._run, self._profile, self._notice = run, profile, notice
        self._stay = profile.parallel_workers > 1 and not in_passing_workers(profile)
        self._idle: list[PersistentWorker] = []
        self._taking = threading.Lock()

    def work(self, task: Task, environment: str, lock: int, progress: Progress) -> None:
        """Have a task done in an environment; a worker that fails leaves, and one that is killed is replaced.

        Raises:
            RunError: The work failed, or workers were killed at it again and again.
            Interrupted: This process was asked to stop.
        """
        for left in reversed(range(ATTEMPTS)):
            worker = self._take(task.stage, environment)
            try:
                worker.work(task, lock, progress, self._notice)
            except WorkerKilled:
                worker.close()
                if not left or interrupt.requested():
                    raise
                self._notice(f"The worker of {task.label} was killed; another one takes the task.")
            except BaseException:
                worker.close()
                raise
            else:
                with self._taking:
                    self._idle.append(worker)
                return

    def keep(self, sessions: Collection[str]) -> None:
        """Let those leave that belong to another session than these."""
        self._close(lambda worker: worker.session is not None and worker.session not in sessions)

    def idle_engines(self) -> set[str]:
        """Return the sessions of those of another environment that wait for a task."""
        with self._taking:
            return {worker.session for worker in self._idle if worker.environment and worker.session is not None}

    def close(self) -> None:
        """Let all leave."""
        self._close(lambda worker: True)

    def _take(self, stage: Stage, environment: str) -> PersistentWorker:
        self._close(lambda worker: not worker.alive)
        belongs = None if self._stay and not environment else stay_of(stage, self._profile)
        if environment:  # two engines side by side do not fit
            self._close(lambda worker: bool(worker.environment) and worker.session != belongs)
        with self._taking:
            for worker in self._idle:
                if (worker.environment, worker.session) == (environment, belongs):
                    self._idle.remove(worker)
                    return worker
        return PersistentWorker(self._run, environment, belongs, self._profile.device)

    def _close(self, leaves: Callable[[PersistentWorker], bool]) -> None:
        with self._taking:
            leaving = [worker for worker in self._idle if leaves(worker)]
            self._idle = [worker for worker in self._idle if worker not in leaving]
        for worker in leaving:  # all at once: leaving takes some seconds
            worker.dismiss()
        for worker in leaving:
            worker.close()
