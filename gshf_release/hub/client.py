"""The Hub client: who may write, what a repository holds, requests that are repeated; its errors become ours.

No error carries headers or a token, and what a server answers is shown without secrets.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import GshfError, NetworkError, ReleaseError, VerificationError
from gshf_release.models.internals import require_internals
from gshf_release.release.secrets import redact

Answer = TypeVar("Answer")
ATTEMPTS = 5
AGAIN = "Run the same command again; nothing is sent twice."
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0
"""How long a server may keep silent, for example while it makes a commit of many files."""
WITHOUT_XET = "If this server does not speak Xet, set HF_HUB_DISABLE_XET=1 and run the same command again."
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the Hub: its git object id, and its sha256 if it is stored as a large file."""

    git_sha1: str
    sha256: str | None


def client(token: str | None = None) -> Any:
    """Return a Hub client; the token comes from the environment or the client's own store unless given.

    The library's own HTTP client waits for an answer for ever; this one gives up, so that a hanging server is a network error.
    """
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.utils import disable_progress_bars

    warnings.filterwarnings("ignore", message=".*you are about to commit a data file")  # the judgments of eval/
    set_client_factory(_http_client)
    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="gshf-release")


class RepositoryClient:
    """A Hub client that speaks of one type of repository: every call gets its `repo_type`."""

    def __init__(self, api: Any, repo_type: str) -> None:
        """Wrap `api`; `repo_type` is `model` or `dataset`."""
        self._api, self.repo_type = api, repo_type

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        return partial(found, repo_type=self.repo_type) if callable(found) else found


def _http_client() -> Any:
    from huggingface_hub import utils

    http: Any = getattr(utils, "_http", None)
    consequence = "a server that hangs is waited for for ever"
    require_internals("huggingface_hub", http, "default_client_factory", consequence=consequence)
    made = http.default_client_factory()
    made.timeout = utils.httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return made


def check_access(api: Any, repository: str, *, pull_request: bool = False) -> None:
    """Check the token's role and the owner before anything is sent.

    Args:
        api: A Hub client.
        repository: `OWNER/NAME`.
        pull_request: Changes are only proposed, which anybody may do who can write at all.

    Raises:
        ReleaseError: No token, a token that only reads, or an owner that is neither the user nor an organisation of theirs.
    """
    try:
        user = call(api.whoami)
    except ReleaseError as error:
        raise ReleaseError("The Hub does not accept the token, or there is none.", hint=LOGIN) from error
    access = user.get("auth", {}).get("accessToken", {})
    owner = repository.partition("/")[0]
    if access.get("role") == "read":
        raise ReleaseError("The token may only read.", hint=LOGIN)
    if access.get("role") == "fineGrained" and not _granted(access.get("fineGrained", {}), repository, pull_request):
        raise ReleaseError(f"The fine-grained token may not write to {repository!r}.", hint=LOGIN)
    owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if owner not in owners and not pull_request:
        raise ReleaseError(
            f"The token's user is {user['name']!r} and may not write to {owner!r}.",
            hint=f"{LOGIN} To propose the release to others: --pr",
        )


def _granted(grants: dict[str, Any], repository: str, pull_request: bool) -> bool:
    """Return whether a fine-grained token's scopes allow writing to a repository (or, globally, pull requests)."""
    if pull_request and {"discussion.write", "repo.write"} & set(grants.get("global", [])):
        return True
    named = [scope for scope in grants.get("scoped", []) if "repo.write" in scope.get("permissions", [])]
    return any(scope.get("entity", {}).get("name") in (repository, repository.partition("/")[0]) for scope in named)


def remote_files(api: Any, repository: str, revision: str, *, attempts: int = ATTEMPTS) -> dict[str, RemoteFile]:
    """Return the files of a revision; an absent repository or revision has none.

    Raises:
        NetworkError: The Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def listing() -> dict[str, RemoteFile]:
        try:
            # Without a network this fails at once; the client repeats a listing for half a minute each time.
            api.repo_info(repository, revision=revision)
            tree = list(api.list_repo_tree(repository, recursive=True, revision=revision))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return {}
        files = [entry for entry in tree if hasattr(entry, "blob_id")]
        return {entry.path: RemoteFile(entry.blob_id, entry.lfs.sha256 if entry.lfs else None) for entry in files}

    return call(listing, attempts)


def download(api: Any, repository: str, commit: str, folder: Path) -> None:
    """Download every file of a commit into `folder`, without the cache, and compare the bytes with what the Hub lists.

    Raises:
        NetworkError: The Hub gave up, or an answer was cut.
        VerificationError: A file has other bytes than the Hub lists.
    """
    listed = remote_files(api, repository, commit)
    fetch = partial(api.snapshot_download, repository, revision=commit, local_dir=folder, max_workers=2)
    call(fetch)
    wrong = [name for name, remote in listed.items() if not _is(folder / name, remote)]
    if wrong:
        for name in wrong:
            (folder / name).unlink(missing_ok=True)
        call(partial(fetch, force_download=True))
        wrong = [name for name in wrong if not _is(folder / name, listed[name])]
    if wrong:
        raise VerificationError(
            "\n".join(f"{repository}: {name} does not have the checksum that the Hub lists." for name in wrong)
        )
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def commit_of(api: Any, repository: str, revision: str) -> str | None:
    """Return the commit that a branch or tag stands for, or None if there is no such.

    Raises:
        NetworkError: The Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def found() -> str | None:
        try:
            return str(api.repo_info(repository, revision=revision).sha)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None

    return call(found)


def same_bytes(path: Path, remote: RemoteFile) -> bool:
    """Return whether a local file is what the Hub stores."""
    facts = path.stat()
    sha256, git = _checksums(path, facts.st_mtime_ns, facts.st_size, bool(remote.sha256))
    return sha256 == remote.sha256 if remote.sha256 else git == remote.git_sha1


@lru_cache(maxsize=4096)
def _checksums(path: Path, changed: int, size: int, large: bool) -> tuple[str, str]:
    """Return sha256 or git's id of a file, computed once as long as its time and size stay: weights are compared often."""
    return (sha256_file(path), "") if large else ("", git_sha1(path))


def _is(path: Path, remote: RemoteFile) -> bool:
    return path.is_file() and same_bytes(path, remote)


def tags(api: Any, repository: str) -> dict[str, str]:
    """Return `{tag: commit}`."""
    return {tag.name: tag.target_commit for tag in call(lambda: api.list_repo_refs(repository)).tags}


def head(api: Any, repository: str, revision: str | None = None) -> tuple[str, dict[str, RemoteFile]]:
    """Return the last commit of `main`, or of another branch, and its files."""
    commit = str(call(lambda: api.repo_info(repository, revision=revision)).sha)
    return commit, remote_files(api, repository, commit)


def git_sha1(path: Path) -> str:
    """Return the id git gives the file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def call(request: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
    """Make a request that may be repeated, with back-off on network errors."""
    for attempt in range(attempts):
        try:
            return with_known_errors(request)
        except NetworkError:
            if attempt == attempts - 1:
                raise
            time.sleep(2**attempt / 4)
    raise AssertionError("unreachable")


def with_known_errors(request: Callable[[], Answer]) -> Answer:
    """Make one request; the client's errors become ours, without headers, so that no token can reach a log.

    Raises:
        NetworkError: The same request may succeed later.
        ReleaseError: It will not.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    try:
        return request()
    except GshfError:
        raise
    except LocalTokenNotFoundError as error:
        raise ReleaseError("There is no Hub token.") from error
    except HfHubHTTPError as error:
        raise _refusal(error) from error
    except OfflineModeIsEnabled as error:
        raise NetworkError("The Hub client is set to offline (HF_HUB_OFFLINE).") from error
    except (httpx.TransportError, TimeoutError) as error:
        raise _silence(error) from error
    except ConnectionError as error:  # no other part of the client raises the built-in one
        raise _xet(error) from error
    except ValueError as error:
        raise ReleaseError(f"The Hub refused: {_line(error)[:300]}") from error
    except RuntimeError as error:  # the client wraps what happened to one object of many
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refusal(cause, upload=True) from error
        if isinstance(cause, httpx.TransportError):
            raise _silence(cause) from error
        if cause is None and _speaks_xet():
            raise _xet(error) from error
        raise


def _refusal(error: Any, *, upload: bool = False) -> GshfError:
    """Return what an answer other than 2xx means.

    An upload whose last answer got lost is refused with 400 or 404 when the client repeats it; asked anew, the Hub has it.
    """
    status = error.response.status_code if error.response is not None else 0
    text = f"The Hub answered {status}: {_line(error.server_message or 'no reason given')[:500]}."
    if status in (408, 412, 429) or status >= 500 or (upload and status in (400, 404)):
        return NetworkError(text, hint=AGAIN)
    return ReleaseError(text)


def _silence(error: Exception) -> NetworkError:
    return NetworkError(f"The Hub could not be reached ({type(error).__name__}).", hint=AGAIN)


def _xet(error: Exception) -> NetworkError:
    reason = re.sub(r"\?\S*", "", _line(error))  # an address may hold a signature
    return NetworkError(f"The Hub's Xet storage did not take the upload: {reason[:300]}.", hint=WITHOUT_XET)


def _speaks_xet() -> bool:
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET


def _line(message: object) -> str:
    return redact(" ".join(str(message).split()))
