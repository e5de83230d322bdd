"""Choose the CPU cores that an engine computes on, where there is no GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence


def here() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def divided(cores: Sequence[int], engines: int) -> list[list[int]]:
    """Return the cores of each engine of a machine: parts of one size, or one core each, some of them twice."""
    each = max(1, len(cores) // engines)
    return [[cores[(number * each + place) % len(cores)] for place in range(each)] for number in range(engines)]


def stay_on(cores: Sequence[int]) -> None:
    """Keep this process and those that it starts to some cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
