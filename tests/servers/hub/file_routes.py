"""Routes about files: upload (preupload, LFS, commit), listings, download."""

import base64
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response

from tests.servers.hub.commit_payload import parse_commit, planned_changes
from tests.servers.hub.context import (
    AtCommit,
    CurrentHub,
    Hub,
    Readable,
    Role,
    Writable,
    readable_repository,
    writable_repository,
)
from tests.servers.hub.errors import HubError, entry_not_found, revision_not_found
from tests.servers.hub.messages import LfsBatch, LfsCompletion, LfsObject, PlannedFile, Preupload
from tests.servers.hub.repository_routes import REPOSITORY, page
from tests.servers.hub.store import Commit, Repository, StoredFile, is_large
from tests.servers.hub.views import paths_view, tree_view

router = APIRouter()
LFS = "/{namespace}/{name}.git/info/lfs/objects"
RESOLVE = "/{namespace}/{name}/resolve/{revision}/{path:path}"
DOWNLOAD = ["GET", "HEAD"]


async def readable_dataset(hub: CurrentHub, role: Role, namespace: str, name: str) -> Repository:
    """The dataset in a path outside `/api`, where datasets have a prefix and models none."""
    return await readable_repository(hub, role, namespace, name, "datasets")


async def writable_dataset(repository: Annotated[Repository, Depends(readable_dataset)], role: Role) -> Repository:
    """The same, for those who may write."""
    return await writable_repository(repository, role)


ReadableDataset = Annotated[Repository, Depends(readable_dataset)]
WritableDataset = Annotated[Repository, Depends(writable_dataset)]


@router.post(REPOSITORY + "/preupload/{revision}", name="preupload")
async def preupload(repository: Writable, commit: AtCommit, planned: Preupload) -> dict[str, Any]:
    """How each file is to be sent; `oid` of the present file lets the client skip what has not changed."""
    return {"files": [_upload_plan(file, commit.files.get(file.path)) for file in planned.files]}


@router.post(LFS + "/batch", name="lfs_batch")
async def lfs_batch(hub: CurrentHub, repository: Writable, batch: LfsBatch) -> dict[str, Any]:
    """Where to put each large file; an object without actions is here already."""
    return {
        "transfer": "multipart" if hub.part_size else "basic",
        "objects": [_upload_actions(hub, repository, item) for item in batch.objects],
    }


@router.post("/datasets" + LFS + "/batch", name="lfs_batch")
async def lfs_batch_dataset(hub: CurrentHub, repository: WritableDataset, batch: LfsBatch) -> dict[str, Any]:
    """The same for a dataset."""
    return await lfs_batch(hub, repository, batch)


@router.put("/cdn/upload/{kind}/{namespace}/{name}/{oid}", name="lfs_put")
async def lfs_put(hub: CurrentHub, request: Request, kind: str, namespace: str, name: str, oid: str) -> Response:
    """Receives a large file; the signature in the link stands for the rights."""
    hub.check_signature("PUT", request.scope["path"], request)
    repository = await readable_repository(hub, "write", namespace, name, kind)
    await hub.store.objects.receive(request.stream(), oid)
    repository.lfs_objects.add(oid)
    return JSONResponse({}, headers={"ETag": f'"{oid}"'})


@router.put("/cdn/part/{oid}/{number}", name="put_part")
async def put_part(hub: CurrentHub, request: Request, oid: str, number: int) -> Response:
    """Receives one part of a large file."""
    hub.check_signature("PUT", request.scope["path"], request)
    etag = await hub.store.objects.receive_part(request.stream(), oid, number)
    return JSONResponse({}, headers={"ETag": f'"{etag}"'})


@router.post("/cdn/complete/{kind}/{namespace}/{name}/{oid}", name="complete")
async def complete(
    hub: CurrentHub, request: Request, kind: str, namespace: str, name: str, oid: str, wanted: LfsCompletion
) -> dict[str, Any]:
    """Puts the parts together; refuses a part that is missing or another, and a whole that does not hash to its name."""
    hub.check_signature("POST", request.scope["path"], request)
    repository = await readable_repository(hub, "write", namespace, name, kind)
    await hub.store.objects.join(oid, [(part.part_number, part.etag.strip('"')) for part in wanted.parts])
    repository.lfs_objects.add(oid)
    return {}


@router.post(LFS + "/verify", name="lfs_verify")
async def lfs_verify(hub: CurrentHub, repository: Writable, item: LfsObject) -> dict[str, Any]:
    """The client's question whether its upload arrived whole."""
    if item.oid not in repository.lfs_objects:
        raise HubError(404, f"Object {item.oid} was not uploaded")
    if (size := hub.store.objects.path(item.oid).stat().st_size) != item.size:
        raise HubError(422, f"Object {item.oid} has {size} bytes, announced were {item.size}")
    return {}


@router.post("/datasets" + LFS + "/verify", name="lfs_verify")
async def lfs_verify_dataset(hub: CurrentHub, repository: WritableDataset, item: LfsObject) -> dict[str, Any]:
    """The same for a dataset."""
    return await lfs_verify(hub, repository, item)


@router.post(REPOSITORY + "/commit/{revision}", name="commit")
async def commit(
    hub: CurrentHub, request: Request, repository: Writable, revision: str, create_pr: bool = False
) -> dict[str, Any]:
    """One atomic change: all operations or none, and only on top of the parent the client names."""
    branch = unquote(revision)
    if branch not in repository.branches and branch not in repository.pulls:
        raise revision_not_found(branch)
    header, operations = parse_commit(await request.body())
    if hub.faults.take("stale_parent", "commit"):
        _foreign_commit(hub, repository, branch)
    head = repository.resolve(branch)
    if header.parent_commit not in (None, head.oid):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    changes = planned_changes(operations, head, repository, hub.store)
    if hub.faults.take("corrupt", "commit"):
        changes = _corrupted(hub, repository, changes)
    if create_pr:
        branch = repository.open_pull_request(header.summary)
    made = repository.commit(branch, changes, hub.user, header.summary, header.description)
    url = f"{hub.web_url(repository)}/commit/{made.oid}"
    answer = {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}
    if create_pr:
        answer["pullRequestUrl"] = f"{hub.web_url(repository)}/discussions/{repository.pulls[branch].number}"
    return answer


@router.get(REPOSITORY + "/tree/{revision}", name="tree")
@router.get(REPOSITORY + "/tree/{revision}/{path:path}", name="tree")
async def tree(
    hub: CurrentHub,
    request: Request,
    commit: AtCommit,
    path: str = "",
    recursive: bool = False,
    cursor: int = 0,
) -> JSONResponse:
    """Files and folders below a path."""
    folder = unquote(path).strip("/")
    if folder not in commit.folders:
        raise entry_not_found(commit.oid, f"{folder} does not exist on this revision")
    return page(hub, request, tree_view(commit, folder, recursive=recursive), cursor)


@router.post(REPOSITORY + "/paths-info/{revision}", name="paths_info")
async def paths_info(request: Request, commit: AtCommit) -> list[dict[str, Any]]:
    """Named files and folders; the client sends a form."""
    form = parse_qs((await request.body()).decode())
    return list(paths_view(commit, form.get("paths", [])))


@router.api_route(RESOLVE, methods=DOWNLOAD, name="resolve")
async def resolve(
    hub: CurrentHub, request: Request, role: Role, repository: Readable, commit: AtCommit, path: str
) -> Response:
    """A file: small ones from here, large ones by a redirect to the CDN."""
    if repository.gated and role == "none":
        raise HubError(401, f"Access to {repository.id} is restricted: log in to ask for it", "GatedRepo")
    file = commit.files.get(unquote(path))
    if file is None:
        raise entry_not_found(commit.oid)
    if file.is_lfs:
        return _redirect(hub, commit, file)
    if request.method == "GET" and hub.faults.take("corrupt", "resolve"):
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.oid}"'}
        return Response(_flipped(hub.store.objects.path(file.sha256).read_bytes()), headers=headers)
    return _download(hub, commit, file, unquote(path))


@router.api_route("/datasets" + RESOLVE, methods=DOWNLOAD, name="resolve")
async def resolve_dataset(
    hub: CurrentHub, request: Request, role: Role, repository: ReadableDataset, revision: str, path: str
) -> Response:
    """The same for a dataset."""
    return await resolve(hub, request, role, repository, repository.resolve(unquote(revision)), path)


@router.api_route("/cdn/{oid}", methods=DOWNLOAD, name="cdn")
async def cdn(hub: CurrentHub, request: Request, oid: str) -> Response:
    """Content of a large file, whole or by Range; one signature covers GET and HEAD."""
    hub.check_signature("GET", request.scope["path"], request)
    if request.method == "GET" and hub.faults.take("corrupt", "cdn"):
        return Response(_flipped(hub.store.objects.path(oid).read_bytes()), headers={"ETag": f'"{oid}"'})
    return FileResponse(hub.store.objects.path(oid), headers={"ETag": f'"{oid}"'})


def _upload_plan(file: PlannedFile, present: StoredFile | None) -> dict[str, Any]:
    large = is_large(file.path, file.size, base64.b64decode(file.sample))
    plan: dict[str, Any] = {
        "path": file.path,
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
    }
    if present is not None:
        plan["oid"] = present.sha256 if present.is_lfs else present.oid
    return plan


def _upload_actions(hub: Hub, repository: Repository, item: LfsObject) -> dict[str, Any]:
    answer: dict[str, Any] = {"oid": item.oid, "size": item.size}
    if item.oid not in repository.lfs_objects:
        verify = f"{hub.web_url(repository)}.git/info/lfs/objects/verify"
        answer["actions"] = {"upload": _upload(hub, repository, item), "verify": {"href": verify}}
    return answer


def _upload(hub: Hub, repository: Repository, item: LfsObject) -> dict[str, Any]:
    """Where an object goes: whole, or in parts whose addresses stand in `header` and then a call that joins them."""
    place = f"{repository.kind}s/{quote(repository.id)}/{item.oid}"
    if hub.part_size is None or item.size <= hub.part_size:
        return {"href": hub.signed_url("PUT", f"/cdn/upload/{place}")}
    numbers = range(1, -(-item.size // hub.part_size) + 1)
    parts = {f"{number:05d}": hub.signed_url("PUT", f"/cdn/part/{item.oid}/{number}") for number in numbers}
    header = {"chunk_size": str(hub.part_size), **parts}
    return {"href": hub.signed_url("POST", f"/cdn/complete/{place}"), "header": header}


def _corrupted(hub: Hub, repository: Repository, changes: dict[str, StoredFile | None]) -> dict[str, StoredFile | None]:
    """The same changes with one byte of the first large file, or of the first file, another."""
    kept = [(path, changes[path]) for path in sorted(changes) if changes[path]]
    path, file = next((entry for entry in kept if entry[1].is_lfs), kept[0])
    other = hub.store.objects.write(_flipped(hub.store.objects.path(file.sha256).read_bytes()))
    return {**changes, path: repository.lfs_file(other.sha256, other.size) if file.is_lfs else other}


def _flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _foreign_commit(hub: Hub, repository: Repository, branch: str) -> None:
    note = hub.store.objects.write(f"{len(repository.commits)} commits before this one\n".encode())
    repository.commit(branch, {"somebody-else.txt": note}, "somebody-else", "A commit from elsewhere")


def _redirect(hub: Hub, commit: Commit, file: StoredFile) -> Response:
    headers = {
        "X-Repo-Commit": commit.oid,
        "X-Linked-ETag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
    }
    return RedirectResponse(hub.signed_url("GET", f"/cdn/{file.sha256}"), 302, headers)


def _download(hub: Hub, commit: Commit, file: StoredFile, path: str) -> Response:
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.oid}"'}
    name = path.rpartition("/")[2]
    return FileResponse(
        hub.store.objects.path(file.sha256), headers=headers, filename=name, content_disposition_type="inline"
    )
