"""Choose the task that starts next: one rule for the run, which starts it, and for the plan, which reckons its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from gshf_release.run.persistent_worker import environment_of, stay_of
from gshf_release.run.stage import Task


def next_launch(startable: Iterable[Task], busy: Sequence[Task], idle: Collection[str], profile: Profile) -> list[Task]:
    """Return the first task that may start beside those that run, with what is launched together with it; or nothing.

    Args:
        startable: Tasks whose inputs are finished, the longest chain of stages first.
        busy: The tasks that run.
        idle: Sessions of engines that wait for a task.
        profile: What samples, and how many processes train.
    """
    engine = any(environment_of(task.stage, profile) for task in busy)
    divided = any(launch.distributed(task.stage, profile) for task in busy)
    # An engine that waits holds its device: what it can do comes first, so that it leaves before training needs the device.
    ready = iter(sorted(startable, key=lambda task: stay_of(task.stage, profile) not in idle))
    for task in ready:
        if engine and environment_of(task.stage, profile):
            continue  # one engine at a time: it fills the device
        if not launch.distributed(task.stage, profile):
            return [task]
        if not divided:  # each fills all devices
            return [task, *(other for other in ready if other.stage == task.stage)]
    return []
