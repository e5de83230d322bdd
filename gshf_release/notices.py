"""What the user should know about the files that a command reads, said once a command however often a file is read.

Readers lie deep below the commands, and a command may read one file several times (to count its rows, to plan, to train). They
log here; the command line shows each notice once, on stderr.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

LOGGER = logging.getLogger("gshf_release.notices")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False


def notice(text: str, *, key: str = "") -> None:
    """Tell the user something.

    Args:
        text: One line.
        key: Equal notices have equal keys; their text, if it is empty.
    """
    LOGGER.warning("%s", text, extra={"key": key or text})


@contextlib.contextmanager
def heard_by(say: Callable[[str], None]) -> Iterator[None]:
    """Give each different notice to `say`, once, until the block ends."""
    handler = _Once(say)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


class _Once(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the notice unless it was shown before."""
        key = str(getattr(record, "key", ""))
        if key not in self._said:
            self._said.add(key)
            self._say(record.getMessage())
