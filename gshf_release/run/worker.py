"""Run tasks of a recorded plan in this process: `python -m gshf_release.run.worker RUN STAGE [SHARD | --serve=DESCRIPTOR]`.

It may live in another virtual environment than the command that started it; files are all they share. The caller holds the
lock of the task. With `--serve` the shards come one after another through a socket; see `resident.py`. Under torchrun every
rank computes, and rank 0 alone writes.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from gshf_release.errors import GshfError, RunError
from gshf_release.run import interrupt, launch, resident
from gshf_release.run.context import Progress, StageContext, silent
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import run_task
from gshf_release.run.stage import Stage, Task, resolve

SERVE = "--serve="


def main(arguments: list[str]) -> int:
    """Run the named task; return the exit code, and put a known error on one line of stderr."""
    path, name, *rest = arguments
    if launch.world_size() > 1:
        launch.die_with_launcher()
    try:
        run = RunDirectory.open(Path(path))
        stage = next((stage for stage in run.plan if stage.name == name), None)
        if stage is None:
            raise RunError(f"{path} has no stage {name!r}.")
        with interrupt.stop_gently():
            resolve("gshf_release.checkpoints:prepare")(run.profile)
            if rest and rest[0].startswith(SERVE):
                resident.serve(int(rest[0].removeprefix(SERVE)), partial(_work, run, stage))
            else:
                shard = int(rest[0]) if rest else 0
                interrupt.watch(run.stop_file(Task(stage, shard)))
                _work(run, stage, shard)
    except GshfError as error:
        print(f"{launch.ERROR}{error}", file=sys.stderr)
        return error.exit_code
    return 0


def _work(run: RunDirectory, stage: Stage, shard: int, progress: Progress = silent) -> None:
    interrupt.check()
    run_task(StageContext(run, run.recipe, run.profile, Task(stage, shard), progress=progress))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
