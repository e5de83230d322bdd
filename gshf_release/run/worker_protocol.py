"""Define the worker-to-parent protocol: one JSON object per line.

A resident worker sends them through a socket. One of several training processes prints them on stderr, which torchrun and srun
pass on, each after a mark that tells it from the lines of launchers and libraries.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from gshf_release import errors
from gshf_release.errors import GshfError, Interrupted, RunError
from gshf_release.run import interrupt, launch
from gshf_release.run.context import Progress, Say

Message = dict[str, Any]

MARK = "gshf-release worker: "
PAUSE_SECONDS = 0.5
"""Between two reports of progress."""
RETRY = "Run the same command to try again."
"""The hint where nothing better is known."""


class ProgressReporter:
    """Tells progress, now and then and at the end, and every line for the user."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send, self._last = send, 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the work is, as `Progress`."""
        if done == total or time.monotonic() - self._last > PAUSE_SECONDS:
            self._last = time.monotonic()
            self._send({"progress": [done, total, unit]})

    def say(self, text: str) -> None:
        """Tell the user something, as `Say`."""
        self._send({"say": text})


def reporter_among_others() -> ProgressReporter:
    """Return by what one of several training processes tells: that of rank 0 speaks for all."""
    return ProgressReporter(print_marked if launch.rank() == 0 else lambda message: None)


def print_marked(message: Message) -> None:
    """Print a message on stderr, in one write."""
    with contextlib.suppress(OSError):  # where nobody hears it any more, the work is worth finishing all the same
        sys.stderr.write(
            f"{MARK}{json.dumps(message)}\n"
        )  # torchrun's processes are unbuffered: print would write twice
        sys.stderr.flush()


def marked(line: str) -> Message | None:
    """Return the message in a line of stderr, or None if it is no message."""
    _, mark, content = line.partition(MARK)
    with contextlib.suppress(ValueError):  # cut by the end of its process
        return dict(json.loads(content)) if mark else None
    return None


def pass_on(message: Message, progress: Progress, say: Say) -> bool:
    """Pass on what is told during the work; return whether the message was that."""
    if "progress" in message:
        progress(*message["progress"])
    elif "say" in message:
        say(message["say"])
    else:
        return False
    return True


def of_error(error: GshfError) -> Message:
    """Return the message that the work ended in a known error."""
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}


def error_in(message: Message, what: str) -> GshfError:
    """Return the error that `of_error` was given, of the same class, which decides the exit code.

    Args:
        message: What came.
        what: The work that failed.
    """
    if message["kind"] == Interrupted.__name__:
        return Interrupted(message["message"])
    kind = getattr(errors, message["kind"], RunError)
    return kind(f"The worker of {what} failed: {message['message']}", hint=message["hint"])  # type: ignore[no-any-return]


def failure(what: str, lines: Sequence[str], code: int) -> GshfError:
    """Return the error of processes that left nothing but what they printed.

    A known error goes before all others. Interrupted they were only if nothing else made them stop: launchers ask the others to
    end, by the very signal that asks to save and stop, when one of them has failed.

    Args:
        what: The work that failed.
        lines: Of stderr.
        code: The exit code.
    """
    printed = []
    for line in lines:
        message = marked(line)
        if message is None:
            printed.append(line)
        elif message.get("kind") == Interrupted.__name__:
            printed.append(launch.STOPPED)
        elif "kind" in message:
            return error_in(message, what)
    why = launch.complaint(printed, code)
    if why == launch.STOPPED:
        return Interrupted(interrupt.MESSAGE)
    return RunError(f"The worker of {what} failed: {why.rstrip('.')}.", hint=RETRY)
