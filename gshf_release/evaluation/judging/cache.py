"""Judgments on disk, by content: what was paid for once is never asked again, by any run of any process.

    CACHE/ab/ab12...json     one judgment; its name is the sha256 of prompt, model, address, parameters and repeat
    CACHE/ab/ab12...lock     held by the process that is asking for it; the system lets go of it if the process dies

A judgment is written under a temporary name and renamed, and carries a checksum: a damaged one counts as absent. New files
and folders are their owner's alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from gshf_release.data import locks
from gshf_release.data.hashing import sha256_json
from gshf_release.evaluation.verdicts.reading import Reading
from gshf_release.models import checkpoints
from gshf_release.run import interrupt
from gshf_release.run.directory import read_json
from gshf_release.serving.openai_replies import UnreadableReply, read_logprobs

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Judgment:
    """Records what a judge said."""

    text: str
    model: str
    """What the server says answered."""
    finish_reason: str
    logprobs: list[dict[str, Any]] | None
    """Per token, as the server gave them; None if it gave none."""
    prompt_tokens: int
    completion_tokens: int
    asked_at: float
    """Seconds since 1970 when it came."""
    seconds: float
    """How long it took."""
    cost: float | None
    """US dollars, or None if the price is not known."""
    failed: str = ""
    """Why there is no judgment, or empty. A judgment that could not be understood has its text all the same."""
    reasoning: str = ""
    """What the judge thought before it answered, where the server gives that apart; never part of `text`."""
    doubt: str = ""
    """What makes one doubt it whatever it says, of `verdicts.reading.DOUBTS`; never stored."""

    def remarks(self, reading: Reading[Any], thinking: str, prefix: str = "") -> dict[str, str]:
        """Return the keys that its row has beside its benchmark's: each only where there is something to say.

        Args:
            reading: What was read of it.
            thinking: What its text holds of the judge's thinking.
            prefix: Before the keys, in a row of several judgments.
        """
        found = {
            "answered_by": self.model,
            "reasoning": "\n".join(filter(None, (self.reasoning, thinking))),
            "note": reading.note,
            "failed": reading.failed,
        }
        return {prefix + key: text for key, text in found.items() if text}


def refused_judgment(reason: str) -> Judgment:
    """Return a judgment that could not be had."""
    return Judgment("", "", "stop", None, 0, 0, 0.0, 0.0, None, failed=reason)


def default_folder() -> Path:
    """Return where judgments of all runs are kept."""
    return checkpoints.cache_folder() / "judgments"


class Cache:
    """A folder of judgments that several processes may use at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Judgment | None:
        """Return the judgment of a key, or None if there is none or it is damaged."""
        try:
            entry = read_json(self._path(key))
            judgment = entry["judgment"]
            if entry["key"] != key or entry["sha256"] != sha256_json(judgment):
                return None
            found = Judgment(**judgment)
            return replace(found, logprobs=read_logprobs({"content": found.logprobs}))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, UnreadableReply):
            return None

    def put(self, key: str, judgment: Judgment) -> None:
        """Keep a judgment; who calls holds its lock."""
        content = asdict(judgment)
        write_private(self._path(key), {"key": key, "sha256": sha256_json(content), "judgment": content})

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Wait for and hold the right to ask for a judgment.

        Raises:
            Interrupted: The process was asked to stop while it waited.
        """
        path = self._path(key).with_suffix(".lock")
        make_private(path.parent)
        while True:
            with open_private(path, "a") as stream:
                if _held(stream, path):
                    try:
                        yield
                    finally:
                        path.unlink(missing_ok=True)
                    return
            interrupt.sleep(POLL_SECONDS)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def open_private(path: Path, mode: Literal["a", "w"]) -> TextIO:
    """Open a file to write; a new one is its owner's alone, whatever the umask."""
    return open(path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are not there, for their owner alone."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, value: Any) -> None:
    """Write JSON for its owner alone, so that readers see either the old or the new content."""
    make_private(path.parent)
    temporary = path.with_name(f".{path.name}.partial")
    with open_private(temporary, "w") as stream:
        stream.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _held(stream: TextIO, path: Path) -> bool:
    """Take the lock if it is free. A file that its last holder removed meanwhile is no lock any more."""
    try:
        return locks.take(stream) and os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
