"""Processes that must not outlive the one that started them. Imports nothing heavy, so that it works at once.

    python -m gshf_release.run.lifeline LAUNCHER COMMAND...

runs another program, which is asked to end (SIGTERM) when the process LAUNCHER, which started it, ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def die_with_launcher(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process by a signal when its launcher (or the thread of it that started this) ends.

    So none works on without the task's lock.
    """
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, by)


if __name__ == "__main__":
    die_with_launcher(signal.SIGTERM)
    if os.getppid() == int(sys.argv[1]):  # it may have ended before it could be watched
        os.execvp(sys.argv[2], sys.argv[2:])
