"""The collection that holds the repositories of one release: made, filled and shown; the same call again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gshf_release.errors import ReleaseError
from gshf_release.hub.client import call

WITHOUT = "Give the token the right to write collections, or publish with --no-collection."


def title_of(repository: str) -> str:
    """Return what the collection of a release is called; the Hub keeps titles of an owner apart."""
    return repository.rpartition("/")[2]


def description_of(repository: str) -> str:
    """Return the text by which a collection is known to be that of the release; the Hub takes 150 characters."""
    return f"The release of {repository}: weights, quantizations, data sets."[:150]


def collect(api: Any, repository: str, members: Sequence[tuple[str, str]]) -> Any:
    """Put repositories into the release's collection, which is private when it is made; return it.

    Args:
        api: A Hub client.
        repository: `OWNER/NAME` of the release.
        members: `(repository, type)` in the order in which the collection shows them.

    Raises:
        ReleaseError: The Hub refuses, or the owner has another collection of that title.
        NetworkError: The Hub gave up after the retries.
    """
    owner, title, description = repository.partition("/")[0], title_of(repository), description_of(repository)
    make = partial(api.create_collection, title, namespace=owner, description=description, private=True, exists_ok=True)
    try:
        collection = call(make)
        if collection.description != description:
            raise ReleaseError(
                f"{owner} has another collection {title!r} on the Hub, which was not made for this release.",
                hint="Rename it, or publish with --no-collection.",
            )
        there = {(item.item_id, item.item_type) for item in collection.items}
        for member in members:
            if member not in there:
                collection = call(partial(api.add_collection_item, collection.slug, *member, exists_ok=True))
    except ReleaseError as error:
        raise ReleaseError(f"The collection: {error.message}", hint=error.hint or WITHOUT) from error
    return collection


def show(api: Any, collection: Any) -> None:
    """Make a collection public, after its repositories are.

    Raises:
        ReleaseError: The Hub refuses.
        NetworkError: The Hub gave up after the retries.
    """
    if collection.private:
        call(partial(api.update_collection_metadata, collection.slug, private=False))
