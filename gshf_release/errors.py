"""The one exception tree of the package.

Every class is also a standard type, so callers may catch either. A message says what happened and where (file, row, key);
`hint` says what to do next. The command line prints both on one line and exits with `exit_code`.

Rule for a new class: add one only if a caller would treat it differently or the exit code differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GshfError(Exception):
    """A known error: its message is meant for the user, no traceback is needed to understand it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class RecipeError(GshfError, ValueError):
    """A recipe or profile that cannot be read: unknown key, wrong value, missing file."""


class DataError(GshfError, ValueError):
    """A row or file of data that breaks its format; names the file and the line."""


class CalibrationError(DataError):
    """A judge's win rate that cannot be turned into an official one: too little agreement, or outside the known range."""


class CheckpointError(GshfError, OSError):
    """A model that is missing, broken or not what its hash says."""


class TemplateError(CheckpointError):
    """A chat template that is no Jinja, or that refuses a conversation; another form of the conversation may be tried."""


class RunError(GshfError, RuntimeError):
    """A run directory in a state that forbids the request: another recipe, missing stage, no space."""


class RunBusyError(RunError):
    """Another process holds the lock of the stage."""


class Interrupted(GshfError, KeyboardInterrupt):
    """The run was asked to stop (SIGTERM or Ctrl-C) and has saved what it had."""

    exit_code = 130


class EngineError(GshfError, RuntimeError):
    """A sampling engine, reward model or judge that cannot do what the recipe asks."""


class ReleaseError(GshfError, ValueError):
    """Something that must not be published, or cannot be converted."""


class VerificationError(GshfError, ValueError):
    """A hash or a number that does not come out as recorded."""

    exit_code = 3


class NetworkError(GshfError, ConnectionError):
    """The network or the Hub gave up after the retries."""

    exit_code = 4


class AnswerError(NetworkError):
    """A server that answers, but with nothing that can be read; others of its answers may be good."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason or message


class RefusedRequestError(EngineError):
    """A server that refuses one request; `unclear` if it may refuse all of them for the same reason."""

    def __init__(self, message: str, *, hint: str = "", reason: str, unclear: bool) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.unclear = unclear


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def last_complaint(output: Sequence[str]) -> str:
    """Return the last line of a process's output that speaks of an error, or else the very last."""
    told = next((line for line in reversed(output) if "rror" in line), output[-1] if output else "no output")
    return told.strip().rstrip(".")
