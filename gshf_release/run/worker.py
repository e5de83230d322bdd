"""Run tasks of a recorded plan in this process.

    python -m gshf_release.run.worker RUN --serve=DESCRIPTOR     tasks come through a socket; see persistent_worker.py
    python -m gshf_release.run.worker RUN STAGE SHARD...         under torchrun: every rank computes, rank 0 alone writes

It may live in another virtual environment than the command that started it; files are all they share. The caller holds the
locks of the tasks, and the kernel ends this process with it.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from gshf_release.errors import GshfError
from gshf_release.run import interrupt, launch, persistent_worker, worker_protocol
from gshf_release.run.context import Progress, Say, StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.lifeline import die_with_launcher
from gshf_release.run.resource_cache import ResourceCache
from gshf_release.run.stage import Task, resolve
from gshf_release.run.task import run_task

SERVE = "--serve="


def main(arguments: list[str]) -> int:
    """Run tasks; return the exit code, and tell a known error on one line of stderr."""
    path, first, *shards = arguments
    die_with_launcher()
    try:
        run = RunDirectory.open(Path(path))
        tasks = Tasks(run)
        with interrupt.stop_gently(), contextlib.closing(tasks.resources):
            resolve("gshf_release.models.checkpoints:prepare")(tasks.profile)
            if first.startswith(SERVE):
                persistent_worker.serve(int(first.removeprefix(SERVE)), tasks.work)
            else:
                interrupt.watch(run.stop_file(tasks.task(first, int(shards[0]))))
                reporter = worker_protocol.reporter_among_others()
                for shard in shards:
                    tasks.work(first, int(shard), reporter.progress, reporter.say)
                resolve("gshf_release.models.batching:leave_processes")()
    except GshfError as error:
        worker_protocol.print_marked(worker_protocol.of_error(error))
        return error.exit_code
    return 0


class Tasks:
    """The tasks of a run as it was recorded when this process began, and what this process has opened for them."""

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.recipe, self.profile = run, run.recipe, run.profile
        self.stages = {stage.name: stage for stage in run.plan}
        self.resources = ResourceCache()

    def task(self, stage: str, shard: int) -> Task:
        """Return a task by its stage's name."""
        return Task(self.stages[stage], shard)

    def work(self, stage: str, shard: int, progress: Progress, say: Say) -> None:
        """Do a task."""
        interrupt.check()
        task = self.task(stage, shard)
        known = (self.run, self.recipe, self.profile, task)
        run_task(StageContext(*known, progress=progress, say=say, resources=self.resources))


if __name__ == "__main__":
    launch.end(main(sys.argv[1:]))
