"""What a process has opened for a stage, such as an engine or a scorer, kept from one shard to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Thing = TypeVar("Thing")


class Opened:
    """At most one thing, known by the checkpoint that it was opened on."""

    def __init__(self) -> None:
        self._stage = ""
        self._checkpoint: Path | None = None
        self._thing: Any = None

    def begin(self, stage: str) -> None:
        """Close what was opened for another stage."""
        if stage != self._stage:
            self.close()
        self._stage = stage

    def get(self, checkpoint: Path, open_it: Callable[[], Thing]) -> Thing:
        """Return what an earlier shard of this stage opened on the checkpoint, or open it now."""
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
