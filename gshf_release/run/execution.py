"""Run the tasks of a plan that are not finished, each once its own inputs are.

One worker walks the plan in order of declaration. Several take any task whose required shards are finished, even while other
shards of the same stages wait; of several such tasks, the one with the longest chain of stages behind it. So the samples of the
next iteration go before the validation of this one, and the validation fills the workers that sampling leaves free. Each task
is a process of its own that holds the lock of its task and shares nothing with others but finished files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gshf_release import environments
from gshf_release.errors import GshfError, Interrupted, RunError
from gshf_release.profile import Profile
from gshf_release.recipe import Recipe
from gshf_release.results import read_cells, write_cells
from gshf_release.run import interrupt, launch, stopwatch
from gshf_release.run.context import Progress, StageContext, silent
from gshf_release.run.directory import RunDirectory, write_text
from gshf_release.run.manifest import State, fingerprint, input_hashes, state, write_manifest
from gshf_release.run.pruning import require_present
from gshf_release.run.resident import Place, environment_of
from gshf_release.run.stage import Stage, Task, chain_lengths, check_graph, predecessors, requirements, resolve, tasks

REDO_LIMIT_SECONDS = 600.0


class Observer(Protocol):
    """Hears of the run's progress; the command line draws bars and lines from it."""

    def started(self, task: Task, position: int, total: int) -> Progress:
        """A task begins; returns where it reports progress."""
        ...

    def finished(self, task: Task, seconds: float) -> None:
        """A task ended well."""
        ...

    def notice(self, text: str) -> None:
        """Something the user should know."""
        ...


class Quiet:
    """An observer that says nothing."""

    def started(self, task: Task, position: int, total: int) -> Progress:
        """Report nothing."""
        return silent

    def finished(self, task: Task, seconds: float) -> None:
        """Report nothing."""

    def notice(self, text: str) -> None:
        """Report nothing."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One walk over a plan."""

    run: RunDirectory
    recipe: Recipe
    profile: Profile
    stages: list[Stage]
    goal: list[Stage]
    observer: Observer
    place: Place = field(default_factory=Place)

    @property
    def by_name(self) -> Mapping[str, Stage]:
        """The stages by name, checked."""
        return check_graph(self.stages)


def execute(
    stages: list[Stage],
    run: RunDirectory,
    recipe: Recipe,
    profile: Profile,
    *,
    goal: list[Stage] | None = None,
    allow_redo: bool = False,
    observer: Observer | None = None,
) -> None:
    """Bring the stages of `goal` (all if None) to their finished state and merge the results.

    Work that needs another environment goes to a worker there, one for all shards of a stage.

    Args:
        stages: The whole graph, in order.
        run: Where.
        recipe: What.
        profile: How.
        goal: The part to finish; what it reads from other stages must be finished already.
        allow_redo: Redo finished work that the recipe no longer matches, even if it is much.
        observer: Hears of the progress.

    Raises:
        RunError: More than ten minutes of finished work would be redone and `allow_redo` is False; or the disk is full.
        RunBusyError: Another process works on the next stage.
        EngineError: A stage needs an environment that has not been set up; said before any work.
        Interrupted: SIGTERM or Ctrl-C; everything finished stays.
    """
    walk = Execution(run, recipe, profile, stages, goal if goal is not None else stages, observer or Quiet())
    by_name = walk.by_name
    _require_environments(walk)
    _announce_redo(walk, allow_redo)
    with run.work_on(recipe, profile, stages), _session(run), interrupt.stop_gently():
        pending = tasks(walk.goal)
        workers = profile.stages == "worker" or profile.parallel_workers > 1
        try:
            if workers:
                _run_parallel(walk, pending, by_name)
            else:
                for position, task in enumerate(pending, 1):
                    _bring_to_finish(walk, task, by_name, position, len(pending), _work_here)
        finally:
            walk.place.close()
    merge_results(run, stages)


@contextlib.contextmanager
def _session(run: RunDirectory) -> Iterator[None]:
    """Note in the journal from when to when a command works on the run: what no task filled of it was spent between tasks."""
    name = f"{os.getpid()}-{time.time_ns()}"
    run.log("command begins", session=name)
    try:
        yield
    finally:
        run.log("command ends", session=name)


def run_task(context: StageContext) -> None:
    """Do the work of one task: write to a temporary folder, rename, cells, manifest last. The caller holds the lock.

    Where several processes do it together, that of rank 0 alone writes.
    """
    if launch.rank() > 0:
        resolve(context.task.stage.work)(context)
        return
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
        shutil.rmtree(scratch)
    write_text(mark, wanted)


def merge_results(run: RunDirectory, stages: list[Stage]) -> None:
    """Write `results.json`, the pure merge of the stages' cells in order of declaration."""
    with run.short_lock("results"):
        cells = []
        for stage in stages:
            if stage.numbers and run.results(stage).exists():
                cells.extend(read_cells(run.results(stage)))
        write_cells(cells, run.path / "results.json")


def seconds_spent(run: RunDirectory) -> dict[str, float]:
    """Return the seconds of the last finished attempt of each task, by label."""
    return {entry["stage"]: entry["seconds"] for entry in run.journal() if entry["event"] == "finished"}


def _bring_to_finish(
    walk: Execution,
    task: Task,
    by_name: Mapping[str, Stage],
    position: int,
    total: int,
    work: Callable[[Execution, Task, Progress, int], None],
) -> None:
    interrupt.check()
    if state(task, walk.run, walk.recipe, by_name) is State.FINISHED:
        # One killed between its manifest and its end leaves its scratch behind.
        shutil.rmtree(walk.run.scratch(task), ignore_errors=True)
        return
    with walk.run.lock(task) as held:
        condition = state(task, walk.run, walk.recipe, by_name)
        if condition is State.FINISHED:  # another process finished it while we asked for the lock
            return
        if condition is State.DAMAGED:
            walk.observer.notice(f"{task.label}: a file is not what its manifest says; redone.")
        progress = walk.observer.started(task, position, total)
        begun = time.perf_counter()
        if environment_of(task.stage, walk.profile):
            work = _work_in_environment
        work(walk, task, progress, held)
        if task.stage.numbers:
            merge_results(walk.run, walk.stages)
        walk.observer.finished(task, time.perf_counter() - begun)


def _require_environments(walk: Execution) -> None:
    """Refuse before any work if a task that is not finished needs an environment that is not there."""
    for task in tasks(walk.goal):
        name = environment_of(task.stage, walk.profile)
        if name and state(task, walk.run, walk.recipe, walk.by_name, hashes=False) is not State.FINISHED:
            environments.require(name)


def _work_in_environment(walk: Execution, task: Task, progress: Progress, lock: int) -> None:
    """Run one task in the environment that it needs, by the one worker of its stage."""
    environment = environments.require(environment_of(task.stage, walk.profile))
    walk.place.work(environment, walk.run, task, lock, progress)


def _work_here(walk: Execution, task: Task, progress: Progress, lock: int) -> None:
    walk.place.close()  # the engine of the stage before gives its memory back
    if launch.distributed(task, walk.profile):
        _work_in_worker(walk, task, progress, lock)
        return
    run_task(StageContext(walk.run, walk.recipe, walk.profile, task, progress=progress, say=walk.observer.notice))


def _work_in_worker(walk: Execution, task: Task, progress: Progress, lock: int) -> None:
    """Run one task in a process of its own, or in the profile's training processes; their stderr is ours."""
    command = launch.command(task, walk.run, walk.profile, os.environ)
    stop, several = walk.run.stop_file(task), launch.distributed(task, walk.profile)
    stop.unlink(missing_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaint:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=complaint, pass_fds=(lock,), start_new_session=several
        )
        asked = False
        while process.poll() is None:
            if interrupt.requested() and not asked:
                if several:
                    stop.touch()  # torchrun answers a signal by killing its processes after 30 seconds
                else:
                    process.terminate()
                asked = True
            time.sleep(0.05)
        complaint.seek(0)
        lines = complaint.read().strip().splitlines()
    if process.returncode == Interrupted.exit_code or asked:
        raise Interrupted("Stopped on request.")
    if process.returncode != 0:
        why = launch.complaint(lines, process.returncode)
        raise RunError(f"The worker of {task.label} failed: {why}", hint="Run the same command to try again.")


def _run_parallel(walk: Execution, pending: list[Task], by_name: Mapping[str, Stage]) -> None:
    """Keep up to `parallel_workers` workers busy with tasks whose inputs are finished, the longest chain of stages first."""
    lengths = chain_lengths(walk.goal)
    elsewhere = {stage.name for stage in walk.goal if environment_of(stage, walk.profile)}
    order = sorted(enumerate(pending, 1), key=lambda entry: (-lengths[entry[1].stage.name], entry[0]))
    waiting = dict(order)
    done = set(tasks(walk.stages)) - set(pending)
    running: dict[Future[None], tuple[int, Task]] = {}
    with ThreadPoolExecutor(walk.profile.parallel_workers) as pool:
        while waiting or running:
            for position, task in list(waiting.items()):
                if len(running) == walk.profile.parallel_workers:
                    break
                if task.stage.name in elsewhere and any(other.stage.name in elsewhere for _, other in running.values()):
                    continue  # one engine at a time: it fills the device
                if launch.distributed(task, walk.profile) and any(
                    launch.distributed(other, walk.profile) for _, other in running.values()
                ):
                    continue  # each fills all devices
                if all(needed in done for needed in predecessors(task, by_name)):
                    del waiting[position]
                    arguments = (walk, task, by_name, position, len(pending), _work_in_worker)
                    running[pool.submit(_bring_to_finish, *arguments)] = (position, task)
            in_use = {task.stage.name for task in waiting.values()} | {task.stage.name for _, task in running.values()}
            if walk.place.stage is not None and not in_use & elsewhere & {walk.place.stage.name}:
                walk.place.close()
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                _, task = running.pop(future)
                future.result()
                done.add(task)


def _announce_redo(walk: Execution, allow_redo: bool) -> None:
    """Say which finished work a changed recipe would redo, and refuse if it is much.

    What depends on changed work is counted too, although it may turn out to be unchanged.
    """
    by_name = walk.by_name
    spent = seconds_spent(walk.run)
    affected: set[Task] = set()
    redone: list[Task] = []
    for task in tasks(walk.goal):
        upstream = any(needed in affected for needed in requirements(task, by_name))
        finished = walk.run.manifest(task) is not None
        condition = state(task, walk.run, walk.recipe, by_name, hashes=False) if finished else State.MISSING
        if upstream or condition is State.CHANGED:
            affected.add(task)
            if finished:
                redone.append(task)
    if not redone:
        return
    seconds = sum(spent.get(task.label, 0.0) for task in redone)
    names = list(dict.fromkeys(task.stage.name for task in redone))
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    minutes = f"{seconds / 60:.1f} minutes"
    text = f"The recipe or an input changed: {len(names)} finished stage(s) will be redone ({minutes}): {listed}."
    if seconds > REDO_LIMIT_SECONDS and not allow_redo:
        raise RunError(text, hint="Add --allow-redo to do so, or choose another folder with --run.")
    walk.observer.notice(text)


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
