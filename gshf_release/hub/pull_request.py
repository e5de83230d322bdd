"""A release as a pull request, for repositories of others: one commit an iteration, no tags before it is merged."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gshf_release.errors import NetworkError
from gshf_release.hub.client import ATTEMPTS, RepositoryClient, call, check_access, head, with_known_errors
from gshf_release.hub.publish import COMMIT_PREFIX, FolderCommit, check_stored, commit, equal, local_files, operations


def propose(api: Any, wanted: list[FolderCommit], *, report: Callable[[str], None]) -> list[str]:
    """Open a pull request in each repository, or go on with the open one; return their addresses.

    Args:
        api: A Hub client.
        wanted: What `parts` found.
        report: Called with one line per step.

    Raises:
        ReleaseError: The token may not write, or the Hub refuses.
        NetworkError: The Hub gave up after the retries.
        VerificationError: The Hub stores other bytes than those sent.
    """
    found = []
    for repository in dict.fromkeys(part.repository for part in wanted):
        check_access(api, repository, pull_request=True)
        mine = [part for part in wanted if part.repository == repository]
        typed = RepositoryClient(api, mine[0].repo_type)
        if _holds(typed, mine):
            report(f"{repository}: holds this release already, checksums equal")
        else:
            found.append(_propose(typed, mine, report))
    return found


def _holds(api: Any, wanted: list[FolderCommit]) -> bool:
    """Return whether `main` shows the last part and has commits of all others: then there is nothing to propose."""
    repository = wanted[0].repository
    if not equal(local_files(wanted[-1].folder), head(api, repository)[1]):
        return False
    titles = {entry.title.removeprefix(COMMIT_PREFIX) for entry in call(lambda: api.list_repo_commits(repository))}
    return {part.title for part in wanted} <= titles


def _propose(api: Any, wanted: list[FolderCommit], report: Callable[[str], None]) -> str:
    first = wanted[0]
    number = _open_request(api, first) or _open(api, first)
    revision = f"refs/pr/{number}"
    commits = call(lambda: api.list_repo_commits(first.repository, revision=revision))
    done = {entry.title.removeprefix(COMMIT_PREFIX) for entry in commits}
    for part in wanted:
        parent, files = head(api, part.repository, revision)
        local = local_files(part.folder)
        last = part is wanted[-1]
        if part.title not in done or (last and not equal(local, files)):
            made = commit(api, part.repository, part.title, local, parent, files, revision=revision)
            check_stored(api, part, local, made)
        report(f"{part.repository}: {part.title} in pull request {number}, remote checksums equal")
    kind = "datasets/" if first.repo_type == "dataset" else ""
    return f"{api.endpoint}/{kind}{first.repository}/discussions/{number}"


def _open_request(api: Any, part: FolderCommit) -> int | None:
    """Return the number of the open pull request that an earlier call made, if there is one."""
    options = {"discussion_type": "pull_request", "discussion_status": "open"}
    found = call(lambda: list(api.get_repo_discussions(part.repository, **options)))
    return next((int(entry.num) for entry in found if entry.title == f"{COMMIT_PREFIX}{part.title}"), None)


def _open(api: Any, part: FolderCommit) -> int:
    """Open a pull request with the first part's files; a lost answer is looked into before anything is repeated."""
    for attempt in range(ATTEMPTS):
        parent, files = head(api, part.repository)
        changes = operations(local_files(part.folder), files)
        options = {"parent_commit": parent, "commit_message": f"{COMMIT_PREFIX}{part.title}", "create_pr": True}
        try:
            info: Any = with_known_errors(partial(api.create_commit, part.repository, changes, **options))
            return int(info.pr_num)
        except NetworkError:
            known = _open_request(api, part)
            if known is not None:
                return known
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt / 2)
    raise AssertionError("unreachable")
