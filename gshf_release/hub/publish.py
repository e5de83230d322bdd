"""Releases to the Hub: one atomic commit per iteration, a tag on it, remote checksums compared with the local files.

What the Hub has already is compared by hash and not sent again, so the same command after any failure finishes the work. The
journal says what was sent and when; nothing is decided by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gshf_release.errors import NetworkError, ReleaseError, VerificationError
from gshf_release.hub.client import (
    ATTEMPTS,
    RemoteFile,
    RepositoryClient,
    call,
    check_access,
    head,
    remote_files,
    same_bytes,
    tags,
    with_known_errors,
)
from gshf_release.hub.collection import collect, show
from gshf_release.hub.upload import upload
from gshf_release.recipe import AllowedFinding
from gshf_release.release import manifest, rules
from gshf_release.release.folders import DATA_SETS, REPOSITORIES, final_folder, release_folders

KEPT = ".gitattributes"
CARD = "README.md"
FIRST_COMMIT = "initial commit"
COMMIT_PREFIX = "Release "


@dataclass(frozen=True, slots=True)
class FolderCommit:
    """One folder that becomes one commit."""

    folder: Path
    repository: str
    tag: str | None
    main: bool = False
    """Whether it is the iteration that the repository's `main` shows in the end."""
    repo_type: Literal["model", "dataset"] = "model"

    @property
    def label(self) -> str:
        """`OWNER/NAME@TAG`, or `@main` without a tag."""
        return f"{self.repository}@{self.tag or 'main'}"

    @property
    def title(self) -> str:
        """Return what its commit is called, after `Release `."""
        return self.tag or self.folder.name


def parts(release: Path, repository: str) -> list[FolderCommit]:
    """Return what a run's release consists of: every iteration of the weights, the GGUF repository, the data sets.

    Args:
        release: The `release` folder of a run, or what `--out` wrote.
        repository: `OWNER/NAME`.

    Raises:
        ReleaseError: There is nothing to publish, or a folder breaks the rules.
    """
    name = repository.rpartition("/")[2]
    rules.check_repository(repository)
    found = []
    for suffix in REPOSITORIES:
        kind: Literal["model", "dataset"] = "dataset" if suffix.removeprefix("-") in DATA_SETS else "model"
        folders = sorted(release_folders(release, f"{name}{suffix}"), key=_iteration)
        shown = final_folder(release, f"{name}{suffix}") or (folders[-1].name if folders else None)
        for folder in folders:
            tag = folder.name if folder.name.startswith("iter-") else None
            found.append(FolderCommit(folder, f"{repository}{suffix}", tag, tag is not None and tag == shown, kind))
    if not found:
        raise ReleaseError(f"{release} holds no finished release.", hint="Run: gshf-release publish RUN --out DIR")
    for part in found:
        check_folder(part.folder)
    return found


def check_folder(folder: Path) -> None:
    """Check a folder once more, right before it may be sent.

    Raises:
        ReleaseError: It breaks the rules.
        VerificationError: It is not what its manifest says.
    """
    declared = (
        manifest.read_release_manifest(folder).get("allowed_findings", []) if (folder / manifest.NAME).is_file() else []
    )
    rules.check_folder(folder, [AllowedFinding.model_validate(entry) for entry in declared])
    manifest.verify(folder)


def _iteration(path: Path) -> tuple[int, str]:
    number = path.name.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, path.name)


def publish(
    api: Any, wanted: list[FolderCommit], *, public: bool, report: Callable[[str], None], collection: str | None = None
) -> list[str]:
    """Upload the parts in order; return the commit of each.

    Args:
        api: A Hub client.
        wanted: What `parts` found.
        public: Visibility of repositories made here; existing ones keep theirs unless this is set.
        report: Called with one line per step.
        collection: `OWNER/NAME` of the release whose repositories, if there are several, one collection is to hold.

    Raises:
        ReleaseError: No valid token, no write access, or the repository holds other content.
        NetworkError: The Hub gave up after the retries.
        VerificationError: The Hub stores other bytes than those sent.
    """
    check_access(api, wanted[0].repository)
    commits = []
    for part in wanted:
        typed = RepositoryClient(api, part.repo_type)
        call(partial(typed.create_repo, part.repository, private=True, exist_ok=True))
        commits.append(_publish_part(typed, part, report))
    for part in wanted:
        if part.main:
            _show_on_main(RepositoryClient(api, part.repo_type), part)
    members = members_of(wanted)
    collected = collect(api, collection, members) if collection is not None and len(members) > 1 else None
    if collected is not None:
        report(f"collection {collected.slug}: {len(members)} repositories")
    if public:
        for repository, repo_type in members:
            call(partial(RepositoryClient(api, repo_type).update_repo_settings, repository, visibility="public"))
        if collected is not None:
            show(api, collected)
    return commits


def members_of(wanted: list[FolderCommit]) -> list[tuple[str, str]]:
    """Return `(repository, type)` of every repository of a release, in the order of their upload."""
    return list(dict.fromkeys((part.repository, part.repo_type) for part in wanted))


def _publish_part(api: Any, part: FolderCommit, report: Callable[[str], None]) -> str:
    local = local_files(part.folder)
    tagged = tags(api, part.repository).get(part.tag or "")
    if tagged is not None:
        if not equal(local, remote_files(api, part.repository, tagged)):
            raise ReleaseError(
                f"{part.label} exists on the Hub with other content.",
                hint="Published tags are not moved; publish under another name.",
            )
        report(f"{part.label}: already there, checksums equal")
        return tagged
    parent, files = head(api, part.repository)
    check_ours(api, part.repository, files)
    made = parent if equal(local, files) else _send(api, part, local, parent, files, report)
    check_stored(api, part, local, made)
    if part.tag is not None:
        _tag(api, part, made)
    report(f"{part.label}: {len(local)} files in commit {made[:12]}, remote checksums equal")
    return made


def _send(
    api: Any,
    part: FolderCommit,
    local: Mapping[str, Path],
    parent: str,
    files: Mapping[str, RemoteFile],
    report: Callable[[str], None],
) -> str:
    changed = {name: path for name, path in local.items() if differs(path, files.get(name))}
    sent = upload(api, part.label, part.repository, changed, changed.get(CARD), report)
    return commit(api, part.repository, part.title, local, parent, files, sent=sent)


def check_stored(api: Any, part: FolderCommit, local: Mapping[str, Path], commit: str) -> None:
    """Compare the checksums of a commit on the Hub with the local files.

    Raises:
        VerificationError: Names the files that differ.
    """
    stored = remote_files(api, part.repository, commit)
    if not equal(local, stored):
        wrong = [name for name, path in local.items() if differs(path, stored.get(name))]
        raise VerificationError(
            f"{part.label}: the Hub stores other bytes for {', '.join(wrong[:3]) or 'extra files'}."
        )


def check_ours(api: Any, repository: str, files: Mapping[str, RemoteFile]) -> None:
    """Refuse a repository with content that was not published from here.

    Raises:
        ReleaseError: Names a file of somebody else.
    """
    foreign = sorted(set(files) - {KEPT})
    if foreign and not _is_ours(api, repository):
        raise ReleaseError(
            f"{repository} holds other content on the Hub, for example {foreign[0]}.",
            hint="Publish under another name.",
        )


def _is_ours(api: Any, repository: str) -> bool:
    """Return whether every commit of a repository was made here: the Hub's own first one, then releases."""
    titles = [commit.title for commit in call(lambda: api.list_repo_commits(repository))]
    return all(title == FIRST_COMMIT or title.startswith(COMMIT_PREFIX) for title in titles)


def _show_on_main(api: Any, part: FolderCommit) -> None:
    """Make `main` show the final iteration, where another was committed after it."""
    parent, files = head(api, part.repository)
    local = local_files(part.folder)
    if not equal(local, files):
        commit(api, part.repository, part.title, local, parent, files)


def commit(
    api: Any,
    repository: str,
    title: str,
    local: Mapping[str, Path],
    parent: str,
    files: Mapping[str, RemoteFile],
    *,
    sent: Mapping[str, Any] | None = None,
    **where: Any,
) -> str:
    """Make one commit that leaves exactly the local files; a lost answer or a stale parent is looked into and repeated.

    Args:
        api: A Hub client.
        repository: `OWNER/NAME`.
        title: The commit's first line, after `Release `.
        local: What the commit is to leave, by path in the repository.
        parent: The commit it is made on.
        files: What that holds.
        sent: What `upload` returned.
        where: `revision` of the branch, if it is not `main`.

    Raises:
        ReleaseError: Somebody else commits to the repository at the same time, or the Hub refuses the commit.
        NetworkError: The Hub gave up after the retries.
    """
    for attempt in range(ATTEMPTS):
        try:
            request = partial(
                api.create_commit, repository, operations(local, files, sent or {}), parent_commit=parent, **where
            )
            info: Any = with_known_errors(partial(request, commit_message=f"{COMMIT_PREFIX}{title}"))
            return str(info.oid)
        except NetworkError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt / 2)
        known = set(files) | set(local) | {KEPT}
        parent, files = head(api, repository, **where)
        if equal(local, files):
            return parent
        strange = sorted(set(files) - known)
        if strange:
            raise ReleaseError(
                f"Somebody else commits to {repository}: {strange[0]} appeared.", hint="Look at it first."
            )
    raise NetworkError(f"The Hub did not take the commit of {repository}.")


def operations(
    local: Mapping[str, Path], files: Mapping[str, RemoteFile], sent: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return what turns the remote files into the local ones; equal files are left alone, operations of sent ones reused."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    changed = {name: path for name, path in local.items() if differs(path, files.get(name))}
    known = sent or {}
    added = [known.get(name) or CommitOperationAdd(name, str(path)) for name, path in changed.items()]
    return [*added, *(CommitOperationDelete(name) for name in sorted(set(files) - set(local) - {KEPT}))]


def tag_message(part: FolderCommit) -> str:
    """Return what the tag says: the canonical digest of the manifest, so that the tag alone fixes every byte."""
    return f"manifest sha256 {manifest.digest(part.folder)}"


def _tag(api: Any, part: FolderCommit, commit: str) -> None:
    call(
        lambda: api.create_tag(
            part.repository, tag=part.tag, tag_message=tag_message(part), revision=commit, exist_ok=True
        )
    )
    target = tags(api, part.repository).get(str(part.tag))
    if target != commit:
        raise VerificationError(f"{part.repository}: tag {part.tag} points to {target}, not to {commit}.")


def local_files(folder: Path) -> dict[str, Path]:
    """Return `{path in the repository: file}` of a release folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder): path for path in found}
    return {name.as_posix(): path for name, path in names.items() if ".cache" not in name.parts}


def differs(path: Path, remote: RemoteFile | None) -> bool:
    """Return whether the Hub does not store what the local file holds."""
    return remote is None or not same_bytes(path, remote)


def equal(local: Mapping[str, Path], remote: Mapping[str, RemoteFile]) -> bool:
    """Return whether the Hub stores exactly the local files."""
    return set(local) == set(remote) - {KEPT} and not any(differs(local[name], remote[name]) for name in local)
