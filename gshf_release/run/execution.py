"""Runs the tasks of a plan that are not finished, each once its own inputs are.

One worker walks the plan in order of declaration. Several take any task whose required shards are finished, even while other
shards of the same stages wait; of several such tasks, the one with the longest chain of stages behind it. So the samples of the
next iteration go before the validation of this one, and the validation fills the workers that sampling leaves free. A worker is
a process that stays for the tasks to come; it holds the lock of its task and shares nothing with others but finished files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from typing import Protocol

from gshf_release import environments
from gshf_release.data.results import read_cells, write_cells
from gshf_release.errors import GshfError, Interrupted, RunError
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt, launch
from gshf_release.run.checkpoint_layout import CheckpointLayout, lay_out, withhold
from gshf_release.run.context import Progress, StageContext, silent
from gshf_release.run.directory import RunDirectory
from gshf_release.run.manifest import State, state
from gshf_release.run.persistent_worker import environment_of, session_of, stay_of
from gshf_release.run.processes import Processes
from gshf_release.run.resource_cache import ResourceCache
from gshf_release.run.scheduler import next_launch
from gshf_release.run.stage import Stage, Task, chain_lengths, check_graph, predecessors, requirements, tasks
from gshf_release.run.task import run_task
from gshf_release.run.worker_pool import WorkerPool, in_passing_workers

REDO_LIMIT_SECONDS = 600.0
"""Finished work up to so much is redone without `--allow-redo`."""


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


class SilentObserver:
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
    """Holds the settings and the workers of one walk over a plan."""

    run: RunDirectory
    recipe: Recipe
    profile: Profile
    stages: list[Stage]
    goal: list[Stage]
    observer: Observer
    workers: WorkerPool
    resources: ResourceCache = field(default_factory=ResourceCache)

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
    on_purpose: Collection[str] = (),
    observer: Observer | None = None,
) -> None:
    """Bring the stages of `goal` (all if None) to their finished state and merge the results.

    Work that needs another environment goes to a worker there, one for all shards of a stage. Work that the training processes
    divide goes to them, started once for all shards of a stage that can start.

    Args:
        stages: The whole graph, in order.
        run: Where.
        recipe: What.
        profile: How.
        goal: The part to finish; what it reads from other stages must be finished already.
        allow_redo: Redo finished work that the recipe no longer matches, even if it is much.
        on_purpose: Names of stages that the user has just asked to redo: their time does not count.
        observer: Hears of the progress.

    Raises:
        RunError: More than ten minutes of finished work would be redone and `allow_redo` is False; or the disk is full.
        RunBusyError: Another process works on the next stage.
        EngineError: A stage needs an environment that has not been set up; said before any work.
        Interrupted: SIGTERM or Ctrl-C; everything finished stays.
    """
    told = observer or SilentObserver()
    workers = WorkerPool(run, profile, told.notice)
    walk = Execution(run, recipe, profile, stages, goal if goal is not None else stages, told, workers)
    by_name = walk.by_name
    _require_environments(walk)
    _announce_redo(walk, allow_redo, on_purpose)
    with run.work_on(recipe, profile, stages), _session(run), interrupt.stop_gently():
        pending = tasks(walk.goal)
        if profile.parallel_workers > 1:
            _run_parallel(walk, pending, by_name)
        else:
            _run_serially(walk, pending, by_name)
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


def _run_serially(walk: Execution, pending: list[Task], by_name: Mapping[str, Stage]) -> None:
    """Do one task after the other, in this process where nothing speaks against it."""
    positions = {task: position for position, task in enumerate(pending, 1)}
    work = _work_in_worker if in_passing_workers(walk.profile) else _work_here
    try:
        # The order is settled before the first task: an engine that is opened serves all tasks of its session in one go.
        for together in _launch_groups(walk, engines_together(pending, by_name, walk.profile)):
            stage = together[0].stage
            walk.workers.keep({stay_of(stage, walk.profile)})  # who is not needed now gives back its memory
            walk.resources.begin(session_of(stage, walk.profile))
            _finish_tasks(walk, {task: positions[task] for task in together}, by_name, work)
    finally:
        walk.workers.close()
        walk.resources.close()


def engines_together(pending: Sequence[Task], by_name: Mapping[str, Stage], profile: Profile) -> list[Task]:
    """Return the tasks so that stages which sample from one policy in an engine's own environment follow each other.

    The engine then starts once for the answers of a policy's validation and the samples of the iteration after it. A stage only
    moves to an earlier place, and to none before a stage that it reads.
    """
    # The validation of policy 1 (V1), the samples of iteration 2 that it draws (S2), and stages x and y that S2 does not read:
    #     V1  x  S2  y    ->    V1  S2  x  y
    ordered: list[list[Task]] = []
    for stage, group in groupby(pending, key=lambda task: task.stage):
        moved, session = list(group), session_of(stage, profile)
        same = [place for place, other in enumerate(ordered) if session_of(other[0].stage, profile) == session]
        place = same[-1] + 1 if same else len(ordered)
        passed = {task for other in ordered[place:] for task in other}
        if any(needed in passed for task in moved for needed in predecessors(task, by_name)):
            place = len(ordered)  # it would overtake what it reads
        ordered.insert(place, moved)
    return [task for group in ordered for task in group]


def _launch_groups(walk: Execution, pending: list[Task]) -> Iterator[list[Task]]:
    """Yield the tasks in order; the shards of a stage that the training processes divide come in one list."""
    for stage, group in groupby(pending, key=lambda task: task.stage):
        shards = list(group)
        yield from [shards] if launch.distributed(stage, walk.profile) else ([task] for task in shards)


def _finish_tasks(
    walk: Execution, positions: Mapping[Task, int], by_name: Mapping[str, Stage], work: Callable[..., None]
) -> None:
    """Finish tasks of one stage, which are several where the training processes do them.

    Args:
        walk: The walk.
        positions: The tasks, with their positions among all.
        by_name: The stages.
        work: `(walk, task, progress, lock)` does a task that one process does.
    """
    interrupt.check()
    with contextlib.ExitStack() as stack:
        held = {}
        for task in positions:
            lock = _claim(walk, task, by_name, stack)
            if lock is not None:
                held[task] = lock
        if not held:
            return
        (stage,) = {task.stage for task in held}
        if launch.distributed(stage, walk.profile):
            _work_in_processes(walk, held, positions)
            return
        ((task, lock),) = held.items()
        with _reported(walk, task, positions[task]) as progress:
            if name := environment_of(stage, walk.profile):
                walk.workers.work(task, name, lock, progress)
            else:
                work(walk, task, progress, lock)


def _claim(walk: Execution, task: Task, by_name: Mapping[str, Stage], stack: contextlib.ExitStack) -> int | None:
    """Return the lock of a task, held until the stack closes; None if the task is finished."""
    # Double-checked locking: a finished task needs no lock, and an unfinished one may be finished before we have its lock.
    if state(task, walk.run, walk.recipe, by_name) is State.FINISHED:
        # One killed between its manifest and its end leaves its scratch behind.
        shutil.rmtree(walk.run.scratch(task), ignore_errors=True)
        return None
    lock = stack.enter_context(walk.run.lock(task))
    condition = state(task, walk.run, walk.recipe, by_name)
    if condition is State.FINISHED:
        return None
    if condition is State.DAMAGED:
        walk.observer.notice(f"{task.label}: a file is not what its manifest says; redone.")
    scratch, wanted = walk.run.scratch(task), CheckpointLayout.of(walk.profile)
    # Scoring, which the processes share too, has shards and no checkpoints.
    trains = launch.distributed(task.stage, walk.profile) and task.stage.shards == 1
    foreign = withhold(scratch, wanted) if trains else None
    if why := foreign or lay_out(scratch, wanted):
        walk.observer.notice(
            f"{task.label}: {why}; the stage begins again, and the checkpoint is kept until it is finished."
        )
    return lock


@contextlib.contextmanager
def _reported(walk: Execution, task: Task, position: int) -> Iterator[Progress]:
    """Tell the observer that a task begins and, if nothing is raised, that it ended; its cells join the others."""
    begun = time.perf_counter()
    # No try: an error leaves at the `yield`, and a task that failed is not told as finished.
    yield walk.observer.started(task, position, sum(stage.shards for stage in walk.goal))
    if task.stage.numbers:
        merge_results(walk.run, walk.stages)
    walk.observer.finished(task, time.perf_counter() - begun)


def _require_environments(walk: Execution) -> None:
    """Refuse before any work if a task that is not finished needs an environment that is not there."""
    for task in tasks(walk.goal):
        name = environment_of(task.stage, walk.profile)
        # The files are not hashed: that is for the moment at which the task is due, and may take minutes.
        if name and state(task, walk.run, walk.recipe, walk.by_name, hashes=False) is not State.FINISHED:
            environments.require(name, walk.profile.device)


def _work_here(walk: Execution, task: Task, progress: Progress, lock: int) -> None:
    say, resources = walk.observer.notice, walk.resources
    run_task(StageContext(walk.run, walk.recipe, walk.profile, task, progress=progress, say=say, resources=resources))


def _work_in_worker(walk: Execution, task: Task, progress: Progress, lock: int) -> None:
    walk.workers.work(task, "", lock, progress)


def _work_in_processes(walk: Execution, held: Mapping[Task, int], positions: Mapping[Task, int]) -> None:
    """Run tasks of one stage in the training processes of the profile, started once for all of them."""
    together = list(held)
    for task in together:
        # The processes report progress for one task after the other and say nothing at the end of one but the last: its new
        # manifest is the sign. An outdated one, of a task to be redone, would be taken for it.
        walk.run.manifest_path(task).unlink(missing_ok=True)
    command = launch.command(together, walk.run, walk.profile, os.environ)
    stop, elsewhere = walk.run.stop_file(together[0]), walk.profile.nodes > 1
    with Processes(command, stop, held.values(), say=walk.observer.notice, elsewhere=elsewhere) as processes:
        for task in together[:-1]:
            with _reported(walk, task, positions[task]) as progress:
                processes.finish(task.label, progress, partial(_is_written, walk.run, task))
        with _reported(walk, together[-1], positions[together[-1]]) as progress:
            processes.finish(together[-1].label, progress)


def _is_written(run: RunDirectory, task: Task) -> bool:
    return run.manifest(task) is not None


def _run_parallel(walk: Execution, pending: list[Task], by_name: Mapping[str, Stage]) -> None:
    """Keep up to `parallel_workers` workers busy with tasks whose inputs are finished, the longest chain of stages first.

    When a task fails, no other begins; those that run are waited for, and the first error is raised.
    """
    lengths = chain_lengths(walk.goal)
    positions = {task: position for position, task in enumerate(pending, 1)}
    waiting = sorted(pending, key=lambda task: (-lengths[task.stage.name], positions[task]))
    # What is outside the goal counts as done: if it is not, `run_task` refuses the task that reads it.
    done = set(tasks(walk.stages)) - set(pending)
    running: dict[Future[None], list[Task]] = {}
    failures: list[BaseException] = []
    # The threads only wait for worker processes. Everything else here (`waiting`, `done`, `running`) belongs to this thread, so
    # it needs no lock; a round starts what can start, waits for the first end, and takes it into account.
    with ThreadPoolExecutor(walk.profile.parallel_workers) as pool:
        try:
            while running or (waiting and not failures):
                while not failures and len(running) < walk.profile.parallel_workers:
                    together = _next_tasks(walk, waiting, list(chain.from_iterable(running.values())), done, by_name)
                    if not together:
                        break
                    waiting = [task for task in waiting if task not in together]
                    at = {task: positions[task] for task in together}
                    running[pool.submit(_finish_tasks, walk, at, by_name, _work_in_worker)] = together
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                over = {future: running.pop(future) for future in ended}
                busy = list(chain.from_iterable(running.values()))
                for future, together in over.items():
                    error = future.exception()
                    if error is None:
                        done.update(together)
                        continue
                    failures.append(error)
                    if busy or len(failures) > 1:  # else it is raised, and told, at once
                        _tell_failure(walk, error, busy)
                walk.workers.keep(_sessions_in_use(walk, [] if failures else waiting, busy, done, by_name))
        finally:
            wait(running)
            # Before the pool ends its threads: Linux kills a worker when the thread that started it ends, not the process
            # (PR_SET_PDEATHSIG in prctl(2)). Closed here, it leaves by itself.
            walk.workers.close()
    if failures:
        raise min(failures, key=lambda error: isinstance(error, Interrupted))  # the first that is no request to stop


def _tell_failure(walk: Execution, error: BaseException, busy: Sequence[Task]) -> None:
    """Tell of a task's failure while others run, which may take hours."""
    if isinstance(error, Interrupted):
        return
    why = str(error) if isinstance(error, GshfError) else f"{type(error).__name__}: {error}"
    names = ", ".join(dict.fromkeys(task.stage.name for task in busy))
    walk.observer.notice(
        f"{why}\nNothing else begins; still running: {names}. Ctrl-C saves and stops." if busy else why
    )


def _next_tasks(
    walk: Execution, waiting: Sequence[Task], busy: Sequence[Task], done: Collection[Task], by_name: Mapping[str, Stage]
) -> list[Task]:
    """Return the tasks to launch together beside those that run; or nothing."""
    startable = [task for task in waiting if _inputs_finished(task, done, by_name)]
    return next_launch(startable, busy, walk.workers.idle_engines(), walk.profile)


def _inputs_finished(task: Task, done: Collection[Task], by_name: Mapping[str, Stage]) -> bool:
    return all(needed in done for needed in predecessors(task, by_name))


def _sessions_in_use(
    walk: Execution,
    waiting: Sequence[Task],
    busy: Sequence[Task],
    done: Collection[Task],
    by_name: Mapping[str, Stage],
) -> set[str]:
    """Return the sessions whose workers are still needed: of tasks that run, that may start, or whose stage has begun."""
    # A stage that has begun keeps its worker although its next shard still waits for inputs: opening a model takes longer.
    begun = {task.stage.name for task in (*busy, *done)}
    wanted = (task for task in waiting if task.stage.name in begun or _inputs_finished(task, done, by_name))
    return {stay_of(task.stage, walk.profile) for task in (*busy, *wanted)}


def _announce_redo(walk: Execution, allow_redo: bool, on_purpose: Collection[str]) -> None:
    """Say which finished work a changed recipe would redo, and refuse if it is much.

    What depends on changed work is counted too, although it may turn out to be unchanged.
    """
    by_name = walk.by_name
    spent = seconds_spent(walk.run)
    # In order of declaration inputs come first, so one pass finds everything downstream of a change.
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
    seconds = sum(spent.get(task.label, 0.0) for task in redone if task.stage.name not in on_purpose)
    names = list(dict.fromkeys(task.stage.name for task in redone))
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    minutes = f"{seconds / 60:.1f} minutes"
    text = f"The recipe or an input changed: {len(names)} finished stage(s) will be redone ({minutes}): {listed}."
    if seconds > REDO_LIMIT_SECONDS and not allow_redo:
        raise RunError(text, hint="Add --allow-redo to do so, or choose another folder with --run.")
    walk.observer.notice(text)
