"""Releases to the Hub: one atomic commit per iteration, a tag on it, remote checksums compared with the local files.

Uploading needs no memory of its own: what the Hub has already is compared by hash and not sent again, so the same command after
any failure finishes the work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from gshf_release.errors import GshfError, NetworkError, ReleaseError, VerificationError
from gshf_release.hashing import sha256_file
from gshf_release.release import manifest, rules
from gshf_release.release.folders import DATA_SETS, REPOSITORIES, final_folder, release_folders

Status = Literal["new", "changed", "unchanged", "remote unknown"]
Answer = TypeVar("Answer")
ATTEMPTS = 5
KEPT = ".gitattributes"
FIRST_COMMIT = "initial commit"
COMMIT_PREFIX = "Release "


@dataclass(frozen=True, slots=True)
class Part:
    """One folder that becomes one commit."""

    folder: Path
    repository: str
    tag: str | None
    main: bool = False
    """Whether it is the iteration that the repository's `main` shows in the end."""
    repo_type: Literal["model", "dataset"] = "model"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the plan."""

    path: str
    size: int
    status: Status


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the Hub: its git object id, and its sha256 if it is stored as a large file."""

    git_sha1: str
    sha256: str | None


def parts(release: Path, repository: str) -> list[Part]:
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
            found.append(Part(folder, f"{repository}{suffix}", tag, tag is not None and tag == shown, kind))
    if not found:
        raise ReleaseError(f"{release} holds no finished release.", hint="Run: gshf-release publish RUN --out DIR")
    for part in found:
        rules.check_folder(part.folder)
        manifest.verify(part.folder)
    return found


def _iteration(path: Path) -> tuple[int, str]:
    number = path.name.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, path.name)


def client(token: str | None = None) -> Any:
    """Return a Hub client; the token comes from the environment or the client's own store unless given."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="gshf-release")


class Typed:
    """A Hub client that speaks of one type of repository: every call gets its `repo_type`."""

    def __init__(self, api: Any, repo_type: str) -> None:
        self._api, self._repo_type = api, repo_type

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._api, name), repo_type=self._repo_type)


def plan(api: Any, part: Part) -> list[Entry]:
    """Return every file of a part with what would happen to it; without a network the remote is unknown."""
    try:
        remote = remote_files(Typed(api, part.repo_type), part.repository, part.tag or "main", attempts=1)
    except NetworkError:
        return [Entry(name, path.stat().st_size, "remote unknown") for name, path in _local(part.folder).items()]
    return [
        Entry(name, path.stat().st_size, _status(path, remote.get(name))) for name, path in _local(part.folder).items()
    ]


def publish(api: Any, wanted: list[Part], *, public: bool, report: Callable[[str], None]) -> list[str]:
    """Upload the parts in order; return the commit of each.

    Args:
        api: A Hub client.
        wanted: What `parts` found.
        public: Visibility of repositories made here; existing ones keep theirs unless this is set.
        report: Called with one line per step.

    Raises:
        ReleaseError: No valid token, no write access, or the repository holds other content.
        NetworkError: The Hub gave up after the retries.
        VerificationError: The Hub stores other bytes than those sent.
    """
    check_access(api, wanted[0].repository)
    commits = []
    for part in wanted:
        typed = Typed(api, part.repo_type)
        _call(partial(typed.create_repo, part.repository, private=not public, exist_ok=True))
        commit = _publish_part(typed, part, report)
        commits.append(commit)
    for part in wanted:
        if part.main:
            _show_on_main(Typed(api, part.repo_type), part)
    for repository, repo_type in dict.fromkeys((part.repository, part.repo_type) for part in wanted):
        if public:
            _call(partial(Typed(api, repo_type).update_repo_settings, repository, visibility="public"))
    return commits


def check_access(api: Any, repository: str) -> None:
    """Check the token's role and the owner before anything is sent.

    Raises:
        ReleaseError: No token, a token that only reads, or an owner that is neither the user nor an organisation of theirs.
    """
    hint = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
    try:
        user = _call(api.whoami)
    except ReleaseError as error:
        raise ReleaseError("The Hub does not accept the token, or there is none.", hint=hint) from error
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise ReleaseError("The token may only read.", hint=hint)
    owner = repository.partition("/")[0]
    owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if owner not in owners:
        raise ReleaseError(f"The token's user is {user['name']!r} and may not write to {owner!r}.", hint=hint)


def remote_files(api: Any, repository: str, revision: str, *, attempts: int = ATTEMPTS) -> dict[str, Remote]:
    """Return the files of a revision; an absent repository or revision has none.

    Raises:
        NetworkError: The Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def listing() -> dict[str, Remote]:
        try:
            # Without a network this fails at once; the client repeats a listing for half a minute each time.
            api.repo_info(repository, revision=revision)
            tree = list(api.list_repo_tree(repository, recursive=True, revision=revision))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return {}
        files = [entry for entry in tree if hasattr(entry, "blob_id")]
        return {entry.path: Remote(entry.blob_id, entry.lfs.sha256 if entry.lfs else None) for entry in files}

    return _call(listing, attempts)


def _publish_part(api: Any, part: Part, report: Callable[[str], None]) -> str:
    local = _local(part.folder)
    label = f"{part.repository}@{part.tag or 'main'}"
    tagged = _tags(api, part.repository).get(part.tag or "")
    if tagged is not None:
        if not _equal(local, remote_files(api, part.repository, tagged)):
            raise ReleaseError(
                f"{label} exists on the Hub with other content.",
                hint="Published tags are not moved; publish under another name.",
            )
        report(f"{label}: already there, checksums equal")
        return tagged
    head, files = _head(api, part.repository)
    foreign = sorted(set(files) - {KEPT})
    if foreign and not _is_ours(api, part.repository):
        raise ReleaseError(
            f"{part.repository} holds other content on the Hub, for example {foreign[0]}.",
            hint="Publish under another name.",
        )
    commit = head if _equal(local, files) else _commit(api, part, local, head, files)
    stored = remote_files(api, part.repository, commit)
    if not _equal(local, stored):
        wrong = [name for name, path in local.items() if _status(path, stored.get(name)) != "unchanged"]
        raise VerificationError(f"{label}: the Hub stores other bytes for {', '.join(wrong[:3]) or 'extra files'}.")
    if part.tag is not None:
        _tag(api, part, commit)
    report(f"{label}: {len(local)} files in commit {commit[:12]}, remote checksums equal")
    return commit


def _is_ours(api: Any, repository: str) -> bool:
    """Return whether every commit of a repository was made here: the Hub's own first one, then releases."""
    titles = [commit.title for commit in _call(lambda: api.list_repo_commits(repository))]
    return all(title == FIRST_COMMIT or title.startswith(COMMIT_PREFIX) for title in titles)


def _show_on_main(api: Any, part: Part) -> None:
    """Make `main` show the final iteration, where another was committed after it."""
    head, files = _head(api, part.repository)
    local = _local(part.folder)
    if not _equal(local, files):
        _commit(api, part, local, head, files)


def _commit(api: Any, part: Part, local: Mapping[str, Path], head: str, files: Mapping[str, Remote]) -> str:
    """Make one commit that leaves exactly the local files; a lost answer or a stale parent is looked into and repeated."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    for attempt in range(ATTEMPTS):
        operations: list[Any] = [
            CommitOperationAdd(name, str(path))
            for name, path in local.items()
            if _status(path, files.get(name)) != "unchanged"
        ]
        operations += [CommitOperationDelete(name) for name in sorted(set(files) - set(local) - {KEPT})]
        try:
            request = partial(api.create_commit, part.repository, operations, parent_commit=head)
            info: Any = _translated(partial(request, commit_message=f"{COMMIT_PREFIX}{part.tag or part.folder.name}"))
            return str(info.oid)
        except NetworkError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt / 2)
        known = set(files) | set(local) | {KEPT}
        head, files = _head(api, part.repository)
        if _equal(local, files):
            return head
        strange = sorted(set(files) - known)
        if strange:
            raise ReleaseError(
                f"Somebody else commits to {part.repository}: {strange[0]} appeared.", hint="Look at it first."
            )
    raise NetworkError(f"The Hub did not take the commit of {part.repository}.")


def _tag(api: Any, part: Part, commit: str) -> None:
    _call(lambda: api.create_tag(part.repository, tag=part.tag, revision=commit, exist_ok=True))
    target = _tags(api, part.repository).get(str(part.tag))
    if target != commit:
        raise VerificationError(f"{part.repository}: tag {part.tag} points to {target}, not to {commit}.")


def _tags(api: Any, repository: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in _call(lambda: api.list_repo_refs(repository)).tags}


def _head(api: Any, repository: str) -> tuple[str, dict[str, Remote]]:
    head = str(_call(lambda: api.repo_info(repository)).sha)
    return head, remote_files(api, repository, head)


def _local(folder: Path) -> dict[str, Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found if ".cache" not in path.parts}


def _status(path: Path, remote: Remote | None) -> Status:
    if remote is None:
        return "new"
    same = sha256_file(path) == remote.sha256 if remote.sha256 else git_sha1(path) == remote.git_sha1
    return "unchanged" if same else "changed"


def _equal(local: Mapping[str, Path], remote: Mapping[str, Remote]) -> bool:
    names = set(remote) - {KEPT}
    return set(local) == names and all(_status(local[name], remote[name]) == "unchanged" for name in names)


def git_sha1(path: Path) -> str:
    """Return the id git gives the file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _call(request: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
    """Make a request that may be repeated, with back-off on network errors."""
    for attempt in range(attempts):
        try:
            return _translated(request)
        except NetworkError:
            if attempt == attempts - 1:
                raise
            time.sleep(2**attempt / 4)
    raise AssertionError("unreachable")


def _translated(request: Callable[[], Answer]) -> Answer:
    """Make one request; the client's errors become ours, without headers, so that no token can reach a log."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    try:
        return request()
    except GshfError:
        raise
    except LocalTokenNotFoundError as error:
        raise ReleaseError("There is no Hub token.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        text = f"The Hub answered {status}: {error.server_message or 'no reason given'}."
        if status in (408, 412, 429) or status >= 500:
            raise NetworkError(text, hint="Run the same command again; nothing is sent twice.") from error
        raise ReleaseError(text) from error
    except OfflineModeIsEnabled as error:
        raise NetworkError("The Hub client is set to offline (HF_HUB_OFFLINE).") from error
    except (httpx.TransportError, ConnectionError, TimeoutError) as error:
        hint = "Run the same command again; nothing is sent twice."
        if "xet" in str(error).lower():
            hint = "This server does not speak Xet; set HF_HUB_DISABLE_XET=1."
        raise NetworkError(f"The Hub could not be reached ({type(error).__name__}).", hint=hint) from error
    except ValueError as error:
        raise ReleaseError(f"The Hub refused: {' '.join(str(error).split())[:300]}") from error
