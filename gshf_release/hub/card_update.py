"""A corrected card on the Hub: `main` shows it, tags stay what they were, and no weight is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gshf_release.errors import ReleaseError
from gshf_release.hub.client import RepositoryClient, check_access, head
from gshf_release.hub.dry_run import Plan, plan
from gshf_release.hub.publish import (
    CARD,
    KEPT,
    FolderCommit,
    check_ours,
    check_stored,
    commit,
    differs,
    equal,
    local_files,
)
from gshf_release.release import manifest, signing

CARD_FILES = (CARD, manifest.NAME, manifest.SIGNATURE, signing.PUBLIC)
CARD_FOLDERS = ("assets/", "eval/")


def publish_card(api: Any, wanted: list[FolderCommit], *, report: Callable[[str], None]) -> list[str]:
    """Commit what the cards consist of to the `main` of each repository; return the commits.

    Args:
        api: A Hub client.
        wanted: What `parts` found; only those that `main` shows are looked at.
        report: Called with one line per repository.

    Raises:
        ReleaseError: Anything but the card differs, or the repository is not on the Hub yet.
        NetworkError: The Hub gave up after the retries.
    """
    check_access(api, wanted[0].repository)
    return [_publish(RepositoryClient(api, part.repo_type), part, report) for part in shown(wanted)]


def shown(wanted: list[FolderCommit]) -> list[FolderCommit]:
    """Return the parts that the `main` of their repository shows."""
    return [part for part in wanted if part.main or part.tag is None]


def plan_card(api: Any, wanted: list[FolderCommit]) -> list[Plan]:
    """Return what `publish_card` would do: the parts that `main` shows, compared with `main`. Sends nothing.

    Raises:
        ReleaseError: Anything but the card differs, or the repository is not on the Hub yet.
    """
    plans = [plan(api, replace(part, tag=None)) for part in shown(wanted)]
    for found in plans:
        changed = [entry.path for entry in found.entries if entry.status not in ("unchanged", "remote unknown")]
        _refuse_others(found.part, changed)
    return plans


def _refuse_others(part: FolderCommit, changed: list[str]) -> None:
    other = [name for name in changed if not _of_card(name)]
    if other:
        raise ReleaseError(
            f"{part.repository}: {other[0]} differs from what the Hub shows on main, and is no part of the card.",
            hint="Publish without --only card.",
        )


def _publish(api: Any, part: FolderCommit, report: Callable[[str], None]) -> str:
    local = local_files(part.folder)
    parent, files = head(api, part.repository)
    check_ours(api, part.repository, files)
    changed = [name for name, path in local.items() if differs(path, files.get(name))]
    _refuse_others(part, [*changed, *sorted(set(files) - set(local) - {KEPT})])
    title = f"card of {part.title}"
    made = parent if equal(local, files) else commit(api, part.repository, title, local, parent, files)
    check_stored(api, part, local, made)
    report(f"{part.repository}: {len(changed)} files of the card in commit {made[:12]}, remote checksums equal")
    return made


def _of_card(name: str) -> bool:
    return name in CARD_FILES or name.startswith(CARD_FOLDERS)
