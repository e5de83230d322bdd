"""Train the tiny recipe in a process that is killed: `python -m tests.end_to_end.train_tiny CHECKPOINTS RUN TASKS DELAY`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from gshf_release import pipeline
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Observer, SilentObserver
from gshf_release.run.stage import Task
from tests import tiny

EXACT = Profile(inference_precision="fp32", threads=1)


class Killing(SilentObserver):
    """An observer that kills this process itself so many seconds after a number of tasks of the run have finished.

    Another process that watched the run could be late, and the run at its end.
    """

    def __init__(self, path: Path, tasks: int, delay: float) -> None:
        self.path, self.tasks, self.delay = path, tasks, delay

    def finished(self, task: Task, seconds: float) -> None:
        """Count the tasks, those of earlier processes too."""
        if len(list(self.path.rglob("manifest.json"))) >= self.tasks:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


def train(checkpoints: Path, path: Path, observer: Observer | None = None) -> RunDirectory:
    """Train the tiny recipe at `path`."""
    recipe = parse(Recipe, tiny.recipe(checkpoints), "tiny")
    run = RunDirectory.create(path, recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=observer or SilentObserver())
    return run


def evaluate(run: RunDirectory) -> None:
    """Evaluate a trained run."""
    pipeline.evaluate(run, EXACT, allow_redo=False, observer=SilentObserver())


if __name__ == "__main__":
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    train(Path(sys.argv[1]), Path(sys.argv[2]), Killing(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
