"""Tells the user about the files that a command reads, once a command however often a file is read.

Readers lie deep below the commands, and a command may read one file several times (to count its rows, to plan, to train). They
speak here; the command line shows each notice once, on stderr. Where nobody listens, as in a worker of a run, nothing is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_listener: ContextVar[Callable[[str, str], None] | None] = ContextVar("listener", default=None)


def notice(text: str, *, key: str = "") -> None:
    """Tell the user something.

    Args:
        text: One line.
        key: Equal notices have equal keys; the text itself, if it is empty.
    """
    tell = _listener.get()
    if tell is not None:
        tell(key or text, text)


@contextlib.contextmanager
def heard_by(say: Callable[[str], None]) -> Iterator[None]:
    """Give each different notice to `say`, once, until the block ends."""
    said: set[str] = set()

    def tell(key: str, text: str) -> None:
        if key not in said:
            said.add(key)
            say(text)

    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)
