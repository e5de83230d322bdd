"""List what publishing would do, without doing it: every file with its size, the tags to make, and how the card changes."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gshf_release.errors import NetworkError
from gshf_release.hub.client import RepositoryClient, call, remote_files
from gshf_release.hub.publish import CARD, KEPT, FolderCommit, differs, local_files, tag_message

Status = Literal["new", "changed", "unchanged", "removed", "remote unknown"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the plan; sizes in bytes."""

    path: str
    size: int
    status: Status


@dataclass(frozen=True, slots=True)
class Plan:
    """Says what would happen to one part."""

    part: FolderCommit
    entries: list[Entry]
    tag: str
    """What would become of its tag: `to make`, `there`, `unknown`, or nothing if it has none."""
    tag_message: str
    card: str
    """The card's change as a unified diff; empty if it stays, or if there is none yet."""

    @property
    def sent(self) -> int:
        """Return how many bytes would be sent."""
        return sum(entry.size for entry in self.entries if entry.status not in ("unchanged", "removed"))


def plan(api: Any, part: FolderCommit) -> Plan:
    """Return the plan of a part; compared with its tag if that exists, else with `main`. Sends nothing.

    Without a network the remote is unknown.
    """
    api = RepositoryClient(api, part.repo_type)
    local = local_files(part.folder)
    message = tag_message(part) if part.tag else ""
    try:
        revision, tag = "main", ""
        if part.tag is not None:
            there = remote_files(api, part.repository, part.tag, attempts=1)
            revision, tag = (part.tag, "there") if there else ("main", "to make")
        remote = remote_files(api, part.repository, revision, attempts=1)
    except NetworkError:
        entries = [Entry(name, path.stat().st_size, "remote unknown") for name, path in local.items()]
        return Plan(part, entries, "unknown" if part.tag else "", message, "")
    entries = [Entry(name, path.stat().st_size, _status(path, remote.get(name))) for name, path in local.items()]
    entries += [Entry(name, 0, "removed") for name in sorted(set(remote) - set(local) - {KEPT})]
    changed = CARD in remote and CARD in local and differs(local[CARD], remote[CARD])
    return Plan(part, entries, tag, message, _card_diff(api, part, revision, local[CARD]) if changed else "")


def _status(path: Path, remote: Any) -> Status:
    if remote is None:
        return "new"
    return "changed" if differs(path, remote) else "unchanged"


def _card_diff(api: Any, part: FolderCommit, revision: str, card: Path) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        fetched = call(lambda: api.hf_hub_download(part.repository, CARD, revision=revision, local_dir=temporary))
        before = Path(fetched).read_text(encoding="utf-8", errors="replace")
    after = card.read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{part.repository}@{revision}", "here", lineterm="", n=1
    )
    return "\n".join(lines)
