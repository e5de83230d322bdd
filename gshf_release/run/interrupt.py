"""SIGTERM and Ctrl-C: long work asks between steps whether it should save and stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gshf_release.errors import Interrupted

MESSAGE = "Stopped on request."
POLL_SECONDS = 0.2

_requested = threading.Event()
_watched: list[Path] = []


def requested() -> bool:
    """Return whether the process was asked to stop."""
    return _requested.is_set() or any(path.exists() for path in _watched)


def watch(path: Path) -> None:
    """Take the appearance of a file for a request to stop: signals do not reach the processes of other machines."""
    _watched.append(path)


def check() -> None:
    """Stop here if asked to.

    Raises:
        Interrupted: The process was asked to stop.
    """
    if requested():
        raise Interrupted(MESSAGE)


def sleep(seconds: float) -> None:
    """Sleep, but stop when the process is asked to.

    Raises:
        Interrupted: The process was asked to stop.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, POLL_SECONDS))


@contextlib.contextmanager
def stop_gently() -> Iterator[None]:
    """Turn SIGTERM, and the first Ctrl-C, into a request that long work honours after saving; a second Ctrl-C stops at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if _requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        _requested.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _requested.clear()
