"""Compute how long a run takes from its first stage to its last, and its critical path.

Counted from the stage graph. A stage that the training processes divide takes its hours on one device over their number, one
that samples over the devices of the engine's copies; a stage in shards is divided among the workers; any other takes its hours
on one device, however many there are. Communication, loading of models and other overheads are not in it (`status` shows what
they were).
"""

from __future__ import annotations

import bisect
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from gshf_release.planning.costs import Requirement
from gshf_release.recipe.profile import Profile
from gshf_release.run.persistent_worker import ENGINE, environment_of, stay_of
from gshf_release.run.scheduler import next_launch
from gshf_release.run.stage import Stage, Task, chain_lengths, check_graph, predecessors, tasks


@dataclass(frozen=True, slots=True)
class Schedule:
    """Records when a run would be over."""

    workers: int
    processes: int
    replicas: int
    copy_devices: int
    """Of one copy of the engine."""
    devices: int
    """All that are paid for."""
    hours: float
    """On the profile's machines."""
    path: list[tuple[str, float]]
    """The stages of the critical path in order, each with the hours of one task on it."""
    price: float | None

    @property
    def path_hours(self) -> float:
        """Return what is left however many workers there are."""
        return sum(hours for _, hours in self.path)


def make_schedule(
    stages: Sequence[Stage],
    hours: Mapping[str, Requirement],
    profile: Profile,
) -> Schedule:
    """Return the schedule of a graph.

    Args:
        stages: The graph, in order.
        hours: Of a whole stage on one device; a stage that is not in it takes none.
        profile: Workers, processes and machines.
    """
    known = {name: need.amount for name, need in hours.items() if need.amount is not None}
    price = profile.hardware.price_per_gpu_hour
    return Schedule(
        workers=profile.parallel_workers,
        processes=profile.world_size,
        replicas=profile.replicas,
        copy_devices=profile.copy_devices,
        devices=profile.devices,
        hours=makespan(stages, known, profile),
        path=critical_path(stages, known, profile),
        price=price,
    )


def task_hours(task: Task, hours: Mapping[str, float], profile: Profile) -> float:
    """Return the hours of one task: an even part of its stage, divided by the devices that share it."""
    alone = hours.get(task.stage.name, 0.0) / task.stage.shards
    if task.stage.runs_in == ENGINE:
        return alone / (profile.replicas * profile.copy_devices)
    return alone / profile.world_size if task.stage.distributed else alone


def critical_path(stages: Sequence[Stage], hours: Mapping[str, float], profile: Profile) -> list[tuple[str, float]]:
    """Return the longest chain of tasks, each of which waits for the one before, as `(stage, hours)`; no workers bound it."""
    by_name = check_graph(list(stages))
    ends: dict[Task, float] = {}
    before: dict[Task, Task] = {}
    for task in tasks(list(stages)):
        needed = [other for other in predecessors(task, by_name) if other in ends]
        last = max(needed, key=lambda other: ends[other], default=None)
        ends[task] = task_hours(task, hours, profile) + (0.0 if last is None else ends[last])
        if last is not None:
            before[task] = last
    path: list[tuple[str, float]] = []
    task_or_none: Task | None = max(ends, key=lambda other: ends[other], default=None)
    while task_or_none is not None:
        path.append((task_or_none.stage.name, task_hours(task_or_none, hours, profile)))
        task_or_none = before.get(task_or_none)
    return [(name, length) for name, length in reversed(path) if length > 0]


def makespan(stages: Sequence[Stage], hours: Mapping[str, float], profile: Profile) -> float:
    """Return the hours from the first task to the end of the last, taken by workers as `run/execution.py` gives them out.

    Args:
        stages: The graph, in order.
        hours: Of a whole stage on one device.
        profile: Workers, processes and machines.
    """
    lengths = chain_lengths(stages)
    order = sorted(tasks(list(stages)), key=lambda task: -lengths[task.stage.name])
    place = {task: number for number, task in enumerate(order)}
    missing, readers = _waiting(stages, place)
    ready = [task for task in order if not missing[task]]
    running: list[tuple[float, int, list[Task]]] = []
    idle: set[str] = set()
    now = 0.0
    while ready or running:
        while len(running) < profile.parallel_workers:
            busy = [task for _, _, launched in running for task in launched]
            together = next_launch(ready, busy, idle, profile)
            if not together:
                break
            ready = [task for task in ready if task not in together]
            ends = now + sum(task_hours(task, hours, profile) for task in together)
            heapq.heappush(running, (ends, place[together[0]], together))
        now, _, ended = heapq.heappop(running)
        idle = {stay_of(task.stage, profile) for task in ended if environment_of(task.stage, profile)} or idle
        for reader in chain.from_iterable(readers[task] for task in ended):
            missing[reader] -= 1
            if not missing[reader]:
                bisect.insort(ready, reader, key=place.__getitem__)
    return now


def _waiting(stages: Sequence[Stage], place: Mapping[Task, int]) -> tuple[dict[Task, int], dict[Task, list[Task]]]:
    """Return how many tasks each one waits for, and which wait for it."""
    by_name = check_graph(list(stages))
    readers: dict[Task, list[Task]] = {task: [] for task in place}
    missing = {}
    for task in place:
        needed = set(predecessors(task, by_name))
        missing[task] = len(needed)
        for other in needed:
            readers[other].append(task)
    return missing, readers


def schedule_lines(found: Schedule) -> list[str]:
    """Return the schedule as text, with its formulas."""
    alone = ", one after the other" if found.workers == 1 else ""
    each = f" x {found.copy_devices} GPUs" if found.copy_devices > 1 else ""
    copies = f" / {found.replicas} copies of the engine{each} where it samples;" if found.replicas > 1 or each else ""
    taken = f"  a copy on {found.copy_devices} GPUs is taken to sample {found.copy_devices} times as fast as one GPU"
    text = [
        f"wall clock: {found.hours:.1f} h; {found.workers} worker(s){alone}, {found.processes} training process(es)",
        f"  hours of one device / processes for a stage that the processes divide;{copies} / shards for one of its shards",
        *([taken] if each else []),
        f"critical path: {found.path_hours:.2f} h, however many workers = {_chain(found.path)}",
    ]
    if found.price is None:
        text.append("cost: unknown; set hardware.price_per_gpu_hour in the profile")
    else:
        paid = found.price * found.devices * found.hours
        text.append(f"cost: {_money(paid)} = {found.hours:.1f} h x {found.devices} devices x {found.price:g} an hour")
    return text


def _chain(path: Sequence[tuple[str, float]]) -> str:
    """Return the path in words, the stages of all iterations taken together."""
    added: dict[str, list[float]] = {}
    for name, hours in path:
        added.setdefault(re.sub(r"^iteration-\d+/", "", name), []).append(hours)
    parts = [
        f"{name} {sum(hours):.2f}" + (f" ({len(hours)} tasks)" if len(hours) > 1 else "")
        for name, hours in added.items()
    ]
    return " + ".join(parts) or "nothing"


def _money(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.0f}"
