"""Refusals of the fake Hub: a status, a message, and the code from which the client picks its exception."""

NOTHING_BY_THAT_NAME = "A file with this name doesn't exist"


class HubError(Exception):
    """An answer other than 2xx.

    Attributes:
        status: HTTP status.
        message: text for the body and the `X-Error-Message` header.
        code: value of `X-Error-Code`; without it the client raises a plain `HfHubHTTPError`.
        headers: further headers of the answer, such as `X-Repo-Commit` on a missing file.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def repository_not_found(*, anonymous: bool) -> HubError:
    """The Hub does not say whether a repository is missing or private; without a token it answers 401."""
    if anonymous:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """The repository is there, the branch, tag or commit is not."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(commit_oid: str, message: str = "Entry not found") -> HubError:
    """The revision is there, the file is not; the client reads the commit from this refusal too."""
    return HubError(404, message, "EntryNotFound", {"X-Repo-Commit": commit_oid})
