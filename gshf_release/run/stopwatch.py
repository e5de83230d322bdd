"""Measure what a task's seconds went into beside its work proper: loading models, hashing outputs, computing cells.

`part` marks such a stretch, wherever in the package it is; `measured` adds the stretches up over one task, for the journal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

Part = Literal["loading", "hashing", "cells"]

_parts: ContextVar[dict[str, float] | None] = ContextVar("parts", default=None)
_inside: ContextVar[bool] = ContextVar("inside", default=False)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Give `{part: seconds}`, which fills while the block runs; threads that the block starts are not heard."""
    found: dict[str, float] = {}
    token = _parts.set(found)
    try:
        yield found
    finally:
        _parts.reset(token)


@contextlib.contextmanager
def part(name: Part) -> Iterator[None]:
    """Count the block (or decorated function) as a part of the task; a part inside a part is the outer one's."""
    found = _parts.get()
    if found is None or _inside.get():
        yield
        return
    token, begun = _inside.set(True), time.perf_counter()
    try:
        yield
    finally:
        _inside.reset(token)
        found[name] = found.get(name, 0.0) + time.perf_counter() - begun
