"""Lock files of open streams by `flock`: the system releases a lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def take(stream: IO[Any]) -> bool:
    """Take the exclusive lock of a file if it is free, and return whether it was."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(stream: IO[Any]) -> None:
    """Wait for the exclusive lock of a file, and take it."""
    fcntl.flock(stream, fcntl.LOCK_EX)


def share(stream: IO[Any]) -> None:
    """Wait for a shared lock of a file; an exclusive one that is held becomes shared."""
    fcntl.flock(stream, fcntl.LOCK_SH)
