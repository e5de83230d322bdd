"""Processes that must not outlive the one that started them. Imports nothing heavy, so that it works at once."""

from __future__ import annotations

import ctypes
import signal

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def die_with_launcher() -> None:
    """Have the kernel kill this process when its launcher (or the thread of it that started this) ends.

    So none works on without the task's lock.
    """
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
