"""Keep what a process has opened for a stage, such as an engine or a scorer, from one task to the next of a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Thing = TypeVar("Thing")


class ResourceCache:
    """Holds at most one engine or scorer, known by the checkpoint that it was opened on."""

    def __init__(self) -> None:
        self._session = ""
        self._checkpoint: Path | None = None
        self._thing: Any = None

    def begin(self, session: str) -> None:
        """Close what was opened in another session: a stage, or all that sample from one policy."""
        if session != self._session:
            self.close()
        self._session = session

    def get(self, checkpoint: Path, open_it: Callable[[], Thing]) -> Thing:
        """Return what an earlier task of the stage or policy opened on the checkpoint, or open it now."""
        if self._checkpoint != checkpoint:
            self.close()
            self._thing = open_it()
            self._checkpoint = checkpoint
        return self._thing  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close it, if it knows how, and let its memory go."""
        thing, self._thing, self._checkpoint = self._thing, None, None
        if hasattr(thing, "close"):
            thing.close()
