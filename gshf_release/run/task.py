"""The work of one task: written to a temporary folder and renamed into place, the manifest last."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from gshf_release.data.results import write_cells
from gshf_release.errors import GshfError, RunError
from gshf_release.run import launch, stopwatch, trust
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, write_text
from gshf_release.run.manifest import fingerprint, input_hashes, write_manifest
from gshf_release.run.persistent_worker import environment_of, session_of
from gshf_release.run.pruning import require_present
from gshf_release.run.stage import Task, check_graph, resolve


def run_task(context: StageContext) -> None:
    """Do the work of one task: write to a temporary folder, rename, cells, manifest last. The caller holds the lock.

    Where several processes do it together, that of rank 0 alone writes.
    """
    stage, profile = context.task.stage, context.profile
    context.resources.begin(session_of(stage, profile))
    try:
        if launch.rank() > 0:
            resolve(stage.work)(context)
        else:
            _run_and_write(context)
    finally:
        # A worker in another environment leaves with its session; until then a later stage of it finds what is open.
        if context.task.shard == stage.shards - 1 and not environment_of(stage, profile):
            context.resources.close()


def _run_and_write(context: StageContext) -> None:
    """Do the work as the process that writes, and note in the journal what its seconds went into."""
    run, task = context.run, context.task
    stages = check_graph(run.plan)
    inputs = input_hashes(task, run, stages)
    if inputs is None:
        raise RunError(f"{task.label} cannot start: an input is not finished.")
    require_present(task, run, stages)
    run.manifest_path(task).unlink(missing_ok=True)
    partial = run.partial(task)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _keep_scratch_only_of(fingerprint(task, context.recipe, inputs), run, task)
    run.log("started", stage=task.label)
    begun = time.perf_counter()
    try:
        with stopwatch.measured() as parts:
            _work_and_record(context, inputs)
    except Exception as error:
        if _is_disk_full(error):
            raise _disk_full(run, task) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(run.scratch(task), ignore_errors=True)
    spent = {name: round(seconds, 3) for name, seconds in parts.items()}
    run.log("finished", stage=task.label, seconds=round(time.perf_counter() - begun, 3), parts=spent)


def _work_and_record(context: StageContext, inputs: Mapping[str, str]) -> None:
    """Do the work, put its outputs in place, compute the cells, and write the manifest."""
    run, task, stage = context.run, context.task, context.task.stage
    with stopwatch.part("loading"):  # the libraries
        work = resolve(stage.work)
    work(context)
    for file in stage.outputs:
        _replace(run.partial(task) / file, run.folder(task) / file)
    if stage.numbers:
        with stopwatch.part("cells"):
            finished = StageContext(run, context.recipe, context.profile, task, finished=True)
            write_cells(resolve(stage.numbers)(finished), run.results(stage))
    with stopwatch.part("hashing"):
        write_manifest(task, run, context.recipe, inputs)


def _keep_scratch_only_of(wanted: str, run: RunDirectory, task: Task) -> None:
    """Drop what a killed attempt left behind unless it was an attempt at the same thing: same recipe keys, same inputs."""
    scratch = run.scratch(task)
    mark = scratch / "fingerprint"
    if scratch.exists() and (not mark.is_file() or mark.read_text(encoding="utf-8") != wanted):
        word = trust.owner(scratch)
        shutil.rmtree(scratch)
        if word:  # the folder is empty: what will lie in it is whose the command has just said
            write_text(scratch / trust.OWNER, word)
    write_text(mark, wanted)


def _replace(source: Path, target: Path) -> None:
    """Move a finished output into place, over whatever an earlier attempt left there."""
    if not source.exists():
        raise RunError(f"the stage did not write its declared output {target.name}")
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _is_disk_full(error: Exception) -> bool:
    """Return whether the disk filled up; safetensors and torch say so only in their texts."""
    full = (errno.ENOSPC, errno.EDQUOT)
    texts = [os.strerror(code) for code in full] + ["PytorchStreamWriter failed", "unexpected pos"]
    return getattr(error, "errno", None) in full or any(text in str(error) for text in texts)


def _disk_full(run: RunDirectory, task: Task) -> GshfError:
    return RunError(
        f"The disk that holds {run.path} is full; {task.label} could not be written. Nothing finished was lost.",
        hint="Free some space and run the same command again.",
    )
