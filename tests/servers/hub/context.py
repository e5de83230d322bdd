"""What every route needs: the server's state, who asks, which repository and which commit."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import unquote

from fastapi import Depends, Request

from tests.servers.hub.errors import HubError, repository_not_found
from tests.servers.hub.faults import Faults
from tests.servers.hub.store import Commit, HubStore, Repository, RepositoryType

KINDS: dict[str, RepositoryType] = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True)
class LoggedRequest:
    """One request as served; `status` is None when the answer was lost on the way."""

    method: str
    path: str
    status: int | None
    route: str


@dataclass
class Hub:
    """State of one server.

    Attributes:
        endpoint: origin of the API, for example `http://127.0.0.1:4000`.
        cdn: origin of large files. It differs from the endpoint because the client follows a redirect within
            one origin by itself and then misses the headers it looks for.
        page_size: entries a page in tree and commit listings.
        under_way: requests that are being served.
        xet: whether large files may come by the Xet protocol too; its tokens are good for one repository each.
        part_size: bytes a part; larger objects are taken in several parts. None takes all whole.
    """

    store: HubStore
    endpoint: str
    cdn: str
    user: str
    organizations: tuple[str, ...]
    tokens: dict[str, Literal["write", "read"]]
    page_size: int
    part_size: int | None = None
    under_way: int = 0
    xet: bool = False
    xet_tokens: dict[str, Repository] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    requests: list[LoggedRequest] = field(default_factory=list)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def signed_url(self, method: str, path: str) -> str:
        """A link to the CDN that works without a token, as the real ones do."""
        return f"{self.cdn}{path}?signature={self._signature(method, path)}"

    def check_signature(self, method: str, path: str, request: Request) -> None:
        """Refuses links this server did not make, and tokens, which a client must never send to a CDN."""
        if "authorization" in request.headers:
            raise HubError(400, "Only one auth mechanism allowed: the token of the Hub was sent to the CDN")
        if not hmac.compare_digest(request.query_params.get("signature", ""), self._signature(method, path)):
            raise HubError(403, "SignatureDoesNotMatch")

    def web_url(self, repository: Repository) -> str:
        """Address of a repository's page; datasets have a prefix."""
        prefix = "datasets/" if repository.kind == "dataset" else ""
        return f"{self.endpoint}/{prefix}{repository.id}"

    def _signature(self, method: str, path: str) -> str:
        return hmac.new(self.secret, f"{method} {path}".encode(), hashlib.sha256).hexdigest()


async def hub_of(request: Request) -> Hub:
    """The server's state. Like all of this server it runs on the event loop: one thread, so no locks."""
    hub: Hub = request.app.state.hub
    return hub


async def role_of(request: Request, hub: "CurrentHub") -> Literal["write", "read", "none"]:
    """What the token allows; a wrong token is refused even where none is needed."""
    header = request.headers.get("authorization")
    if header is None:
        return "none"
    role = hub.tokens.get(header.removeprefix("Bearer "))
    if role is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return role


async def readable_repository(
    hub: "CurrentHub", role: "Role", namespace: str, name: str, kind: str = "models"
) -> Repository:
    """The repository in the path, if the sender may know of it."""
    if kind not in KINDS:
        raise HubError(501, f"Repositories of type {kind} are not emulated")
    repository = hub.store.find(KINDS[kind], f"{unquote(namespace)}/{unquote(name)}")
    if repository is None or (repository.private and role == "none"):
        raise repository_not_found(anonymous=role == "none")
    return repository


async def writable_repository(repository: "Readable", role: "Role") -> Repository:
    """The repository in the path, if the sender may change it."""
    require_write(role)
    return repository


async def commit_of(repository: "Readable", revision: str) -> Commit:
    """The commit that the revision in the path stands for; its slashes arrive quoted."""
    return repository.resolve(unquote(revision))


def require_write(role: str) -> None:
    """Refuses those who may only read, or nothing."""
    if role == "none":
        raise HubError(401, "Invalid username or password.")
    if role != "write":
        raise HubError(403, "You don't have the rights to write with this token")


CurrentHub = Annotated[Hub, Depends(hub_of)]
Role = Annotated[Literal["write", "read", "none"], Depends(role_of)]
Readable = Annotated[Repository, Depends(readable_repository)]
Writable = Annotated[Repository, Depends(writable_repository)]
AtCommit = Annotated[Commit, Depends(commit_of)]
