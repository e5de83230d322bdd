"""Routes about repositories: who asks, create, delete, settings, branches, tags, history."""

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tests.servers.hub.card import card_errors, card_warnings
from tests.servers.hub.context import AtCommit, CurrentHub, Hub, Readable, Role, Writable, require_write
from tests.servers.hub.errors import HubError
from tests.servers.hub.messages import Card, NewBranch, NewTag, RepositoryName, Settings
from tests.servers.hub.store import Commit
from tests.servers.hub.views import commit_view, pull_request_view, references_view, repository_view

router = APIRouter()
REPOSITORY = "/api/{kind}/{namespace}/{name}"


@router.get("/api/whoami-v2", name="whoami")
async def whoami(hub: CurrentHub, role: Role) -> dict[str, Any]:
    """The owner of the token and what the token may do."""
    if role == "none":
        raise HubError(401, "Invalid username or password.")
    return {
        "type": "user",
        "name": hub.user,
        "fullname": hub.user,
        "orgs": [{"type": "org", "name": name, "roleInOrg": role} for name in hub.organizations],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
    }


@router.post("/api/repos/create", name="create_repo")
async def create_repository(hub: CurrentHub, role: Role, wanted: RepositoryName) -> JSONResponse:
    """A new repository; 409 with the same body if there is one, for the client reads the address from it."""
    repo_id = _full_name(hub, role, wanted)
    repository = hub.store.find(wanted.type, repo_id)
    status = 200 if repository is None else 409
    if repository is None:
        private = wanted.visibility == "private" or bool(wanted.private)
        repository = hub.store.create(wanted.type, repo_id, hub.user, private)
    body = {"url": hub.web_url(repository), "name": repo_id, "id": repo_id}
    if status == 409:
        body["error"] = "You already created this repo"
    return JSONResponse(body, status)


@router.delete("/api/repos/delete", name="delete_repo")
async def delete_repository(hub: CurrentHub, role: Role, wanted: RepositoryName) -> dict[str, Any]:
    """Removes a repository."""
    hub.store.delete(wanted.type, _full_name(hub, role, wanted))
    return {}


@router.post("/api/validate-yaml", name="validate_yaml")
async def validate_yaml(card: Card) -> JSONResponse:
    """Whether the Hub would take a card; always JSON, the client parses it before it looks at the status."""
    if errors := card_errors(card.content, card.repo_type):
        return JSONResponse({"errors": [{"message": error} for error in errors], "warnings": []}, 400)
    warnings = [{"message": warning} for warning in card_warnings(card.content)]
    return JSONResponse({"errors": [], "warnings": warnings})


@router.get(REPOSITORY, name="info")
async def info(hub: CurrentHub, repository: Readable, blobs: bool = False) -> dict[str, Any]:
    """The repository at its default branch."""
    return repository_view(repository, repository.resolve("main"), hub.store, blobs=blobs)


@router.get(REPOSITORY + "/revision/{revision}", name="revision")
async def info_at(hub: CurrentHub, repository: Readable, commit: AtCommit, blobs: bool = False) -> dict[str, Any]:
    """The repository at a branch, tag or commit."""
    return repository_view(repository, commit, hub.store, blobs=blobs)


@router.put(REPOSITORY + "/settings", name="settings")
async def change_settings(repository: Writable, settings: Settings) -> dict[str, Any]:
    """Visibility and gating."""
    if settings.visibility is not None or settings.private is not None:
        repository.private = settings.visibility == "private" or bool(settings.private)
    if settings.gated is not None:
        repository.gated = settings.gated
    return {"private": repository.private, "gated": repository.gated}


@router.get(REPOSITORY + "/refs", name="refs")
async def references(repository: Readable) -> dict[str, Any]:
    """Branches and tags with the commits they point to."""
    return references_view(repository)


@router.get(REPOSITORY + "/discussions", name="discussions")
async def discussions(repository: Readable, type: str = "all", status: str = "all", p: int = 0) -> dict[str, Any]:
    """Pull requests, on one page; other discussions do not exist here."""
    pulls = [pull for pull in repository.pulls.values() if status in ("all", pull.status) and type != "discussion"]
    found = [pull_request_view(pull, repository) for pull in pulls] if p == 0 else []
    return {"discussions": found, "count": len(pulls), "start": 0}


@router.get(REPOSITORY + "/commits/{revision}", name="commits")
async def commits(
    hub: CurrentHub, request: Request, repository: Readable, commit: AtCommit, cursor: int = 0
) -> JSONResponse:
    """History of a revision, newest first."""
    history: list[Commit] = list(repository.history(commit.oid))
    return page(hub, request, [commit_view(entry) for entry in history], cursor)


@router.post(REPOSITORY + "/tag/{revision}", name="create_tag")
async def create_tag(repository: Writable, commit: AtCommit, tag: NewTag) -> dict[str, Any]:
    """Names a commit."""
    repository.create_tag(tag.tag, commit.oid, tag.message or "")
    return {"name": tag.tag, "targetCommit": commit.oid}


@router.delete(REPOSITORY + "/tag/{tag}", name="delete_tag")
async def delete_tag(repository: Writable, tag: str) -> dict[str, Any]:
    """Forgets a name."""
    repository.delete_tag(unquote(tag))
    return {}


@router.post(REPOSITORY + "/branch/{branch}", name="create_branch")
async def create_branch(repository: Writable, branch: str, start: NewBranch) -> dict[str, Any]:
    """Starts a branch."""
    repository.create_branch(unquote(branch), start.starting_point)
    return {}


@router.delete(REPOSITORY + "/branch/{branch}", name="delete_branch")
async def delete_branch(repository: Writable, branch: str) -> dict[str, Any]:
    """Ends a branch."""
    repository.delete_branch(unquote(branch))
    return {}


def page(hub: Hub, request: Request, entries: list[dict[str, Any]], cursor: int) -> JSONResponse:
    """One page of a listing, with the address of the next in `Link` as long as there is one."""
    end = cursor + hub.page_size
    headers = {}
    if end < len(entries):
        following = request.url.include_query_params(cursor=end)
        path = request.scope["path"]
        headers["Link"] = f'<{hub.endpoint}{path}?{following.query}>; rel="next"'
    return JSONResponse(entries[cursor:end], headers=headers)


def _full_name(hub: Hub, role: Role, wanted: RepositoryName) -> str:
    """`namespace/name`, if the owner of the token may have repositories there."""
    require_write(role)
    namespace = wanted.organization or hub.user
    if namespace not in (hub.user, *hub.organizations):
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
    return f"{namespace}/{wanted.name}"
