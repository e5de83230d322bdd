"""Routes about collections: make, read, add a repository, show or hide."""

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from tests.servers.hub.context import CurrentHub, Hub, Role, require_write
from tests.servers.hub.errors import HubError
from tests.servers.hub.messages import CollectionChange, NewCollection, NewItem
from tests.servers.hub.store import Collection
from tests.servers.hub.views import collection_view

router = APIRouter()
COLLECTION = "/api/collections/{namespace}/{name}"


async def readable_collection(hub: CurrentHub, role: Role, namespace: str, name: str) -> Collection:
    """The collection in the path, if the sender may know of it."""
    found = hub.store.collections.get(f"{unquote(namespace)}/{unquote(name)}")
    if found is None or (found.private and role == "none"):
        raise HubError(404, "Collection not found")
    return found


async def writable_collection(
    collection: Annotated[Collection, Depends(readable_collection)], role: Role
) -> Collection:
    """The same, for those who may write."""
    require_write(role)
    return collection


ReadableCollection = Annotated[Collection, Depends(readable_collection)]
WritableCollection = Annotated[Collection, Depends(writable_collection)]


@router.post("/api/collections", name="create_collection")
async def create_collection(hub: CurrentHub, role: Role, wanted: NewCollection) -> JSONResponse:
    """A new collection; 409 with the slug of the owner's one of that title, from which the client reads it."""
    require_write(role)
    if wanted.namespace not in (hub.user, *hub.organizations):
        raise HubError(403, f"You don't have the rights to create a collection under {wanted.namespace!r}")
    if len(wanted.description or "") > 150:
        raise HubError(400, "The description has more than 150 characters")
    same = [found for found in hub.store.collections.values() if found.is_called(wanted.namespace, wanted.title)]
    if same:
        return JSONResponse({"error": "This collection already exists", "slug": same[0].slug}, 409)
    made = hub.store.collect(wanted.namespace, wanted.title, wanted.description, wanted.private)
    return JSONResponse(collection_view(made))


@router.get(COLLECTION, name="collection")
async def collection(found: ReadableCollection) -> dict[str, Any]:
    """A collection with its items."""
    return collection_view(found)


@router.post(COLLECTION + "/items", name="add_item")
async def add_item(hub: CurrentHub, found: WritableCollection, wanted: NewItem) -> dict[str, Any]:
    """Puts a repository at the end; 409 if it is in already."""
    _require_repository(hub, wanted)
    item = (wanted.item.type, wanted.item.id)
    if item in found.items:
        raise HubError(409, f"{wanted.item.id} is already in the collection")
    found.items.append(item)
    return collection_view(found)


@router.patch(COLLECTION, name="change_collection")
async def change_collection(found: WritableCollection, change: CollectionChange) -> dict[str, Any]:
    """Shows or hides a collection."""
    if change.private is not None:
        found.private = change.private
    return {"success": True, "data": collection_view(found)}


def _require_repository(hub: Hub, wanted: NewItem) -> None:
    if hub.store.find(wanted.item.type, wanted.item.id) is None:
        raise HubError(404, f"There is no {wanted.item.type} {wanted.item.id}")
