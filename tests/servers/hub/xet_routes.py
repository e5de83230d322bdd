"""Routes of Xet: a token for the storage server, and that server, which takes xorbs and the shards that make files of them."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from tests.servers.hub.context import CurrentHub, Hub, Readable, Role, require_write
from tests.servers.hub.errors import HubError
from tests.servers.hub.repository_routes import REPOSITORY
from tests.servers.hub.store import Repository
from tests.servers.hub.xet_formats import FileEntry, chunks_of, files_of

router = APIRouter()
CAS = "/cas"
SECONDS = 3600
"""How long a token of the storage server lasts."""


@router.get(REPOSITORY + "/xet-write-token/{revision}", name="xet_write_token")
async def xet_write_token(hub: CurrentHub, repository: Readable, role: Role) -> JSONResponse:
    """Where this repository's files go and with which token, in body and headers; without Xet 404, which no client repeats."""
    if not hub.xet:
        raise HubError(404, "This server has no Xet storage: set HF_HUB_DISABLE_XET=1")
    require_write(role)
    token, until = f"xet_{secrets.token_hex(16)}", int(time.time()) + SECONDS
    hub.xet_tokens[token] = repository
    address = f"{hub.cdn}{CAS}"
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}
    return JSONResponse({"casUrl": address, "accessToken": token, "exp": until}, headers=headers)


@router.get(REPOSITORY + "/xet-read-token/{revision}", name="xet_read_token")
async def xet_read_token(repository: Readable) -> None:
    """Downloads go by plain HTTP here."""
    raise HubError(404, "This server has no Xet storage: set HF_HUB_DISABLE_XET=1")


async def repository_of_token(hub: CurrentHub, request: Request) -> Repository:
    """The repository that the token of the storage server is for; a token of the Hub itself has no business here."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    repository = hub.xet_tokens.get(token)
    if repository is None:
        raise HubError(401, "This is no token of the storage server")
    return repository


Target = Annotated[Repository, Depends(repository_of_token)]


@router.get(CAS + "/v1/chunks/{prefix}/{name}", name="xet_chunk")
async def xet_chunk(repository: Target, prefix: str, name: str) -> None:
    """Whether a chunk is here already: never, so that everything is sent."""
    raise HubError(404, "No such chunk")


@router.post(CAS + "/v1/xorb-grants/{prefix}/{name}", name="xet_grant")
async def xet_grant(hub: CurrentHub, repository: Target, prefix: str, name: str) -> JSONResponse:
    """Where a block of chunks may be put; 200 if it is here."""
    if hub.store.objects.xorb(name).is_file():
        return JSONResponse({})
    grant = {
        "id": secrets.token_hex(8),
        "method": "PUT",
        "url": hub.signed_url("PUT", f"/cdn/xorb/{name}"),
        "headers": {},
    }
    return JSONResponse(grant, 201)


@router.put("/cdn/xorb/{name}", name="xet_xorb")
async def xet_xorb(hub: CurrentHub, request: Request, name: str) -> dict[str, Any]:
    """Receives a block of chunks; the signature in the link stands for the rights."""
    hub.check_signature("PUT", request.scope["path"], request)
    path = hub.store.objects.xorb(name)
    partial = path.with_suffix(f".{secrets.token_hex(4)}")
    with partial.open("wb") as file:
        async for content in request.stream():
            file.write(content)
    partial.replace(path)
    return {}


@router.post(CAS + "/v1/xorb-commits/{prefix}/{name}/grant/{grant}", name="xet_xorb_commit")
async def xet_xorb_commit(hub: CurrentHub, repository: Target, prefix: str, name: str, grant: str) -> dict[str, Any]:
    """The client's word that a block is complete."""
    if not hub.store.objects.xorb(name).is_file():
        raise HubError(404, f"The block {name} was not sent")
    return {"was_inserted": True}


@router.post(CAS + "/v1/shards", name="xet_shard")
@router.post(CAS + "/v2/shards", name="xet_shard")
async def xet_shard(hub: CurrentHub, request: Request, repository: Target) -> Response:
    """Makes files of what was sent, if they hash to what their sender says; the second version answers in lines."""
    shard = await request.body()
    try:
        for entry in files_of(shard):
            await hub.store.objects.receive(_content(hub, entry), entry.sha256)
            repository.lfs_objects.add(entry.sha256)
    except ValueError as error:
        raise HubError(400, f"The shard cannot be read: {error}") from error
    if "/v2/" in request.scope["path"]:
        return Response(json.dumps({"type": "result", "result": 1}) + "\n", media_type="application/x-ndjson")
    return JSONResponse({"result": 1})


async def _content(hub: Hub, entry: FileEntry) -> AsyncIterator[bytes]:
    for segment in entry.segments:
        path = hub.store.objects.xorb(segment.xorb)
        if not path.is_file():
            raise HubError(400, f"The block {segment.xorb} was not sent")
        for content in chunks_of(path, segment.start, segment.stop):
            yield content
