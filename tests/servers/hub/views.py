"""What the server answers about repositories, commits and files, as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.servers.hub.card import front_matter
from tests.servers.hub.store import Collection, Commit, HubStore, PullRequest, Repository, StoredFile

Json = dict[str, Any]


def repository_view(repository: Repository, commit: Commit, store: HubStore, *, blobs: bool) -> Json:
    """`GET /api/{type}s/{id}`; `blobs` adds sizes and checksums of the files."""
    metadata = _metadata(commit, store)
    return {
        "id": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit.oid,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(metadata.get("tags") or []),
        "createdAt": timestamp(repository.created),
        "lastModified": timestamp(commit.date),
        "cardData": {key: value for key, value in metadata.items() if key != "model-index"},
        "model-index": metadata.get("model-index"),
        "siblings": [_sibling(path, file, blobs=blobs) for path, file in sorted(commit.files.items())],
    }


def file_view(path: str, file: StoredFile) -> Json:
    """A file in `tree` and `paths-info`: `oid` is git's, the checksum of an LFS file lies in `lfs`."""
    view: Json = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    if file.is_lfs:
        view["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return view


def folder_view(path: str, oid: str) -> Json:
    """A folder in `tree` and `paths-info`."""
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def tree_view(commit: Commit, folder: str, *, recursive: bool) -> list[Json]:
    """Entries below a folder, sorted by path; the root is the empty string."""
    prefix = f"{folder}/" if folder else ""

    def listed(path: str) -> bool:
        below = path.removeprefix(prefix)
        return path.startswith(prefix) and below != "" and (recursive or "/" not in below)

    views = [folder_view(path, oid) for path, oid in commit.folders.items() if listed(path)]
    views += [file_view(path, file) for path, file in commit.files.items() if listed(path)]
    return sorted(views, key=lambda view: str(view["path"]))


def paths_view(commit: Commit, paths: list[str]) -> Iterator[Json]:
    """The entries among `paths` that exist; the Hub leaves out the others without a word."""
    for path in (path.strip("/") for path in paths):
        if path in commit.files:
            yield file_view(path, commit.files[path])
        elif path in commit.folders:
            yield folder_view(path, commit.folders[path])


def commit_view(commit: Commit) -> Json:
    """An entry of `commits`."""
    return {
        "id": commit.oid,
        "title": commit.title,
        "message": commit.description,
        "date": timestamp(commit.date),
        "authors": [{"user": commit.author}],
    }


def pull_request_view(pull: PullRequest, repository: Repository) -> Json:
    """An entry of `discussions`."""
    return {
        "num": pull.number,
        "title": pull.title,
        "status": pull.status,
        "isPullRequest": True,
        "author": {"name": "tester"},
        "createdAt": timestamp(repository.created),
        "repo": {"name": repository.id, "type": repository.kind},
    }


def collection_view(collection: Collection) -> Json:
    """`GET /api/collections/{slug}`."""
    items = [
        {"_id": f"{position:024x}", "id": name, "type": kind, "position": position}
        for position, (kind, name) in enumerate(collection.items)
    ]
    return {
        "slug": collection.slug,
        "title": collection.title,
        "description": collection.description,
        "owner": {"name": collection.slug.partition("/")[0]},
        "items": items,
        "lastUpdated": timestamp(datetime.now(UTC)),
        "position": 0,
        "private": collection.private,
        "theme": "orange",
        "upvotes": 0,
    }


def references_view(repository: Repository) -> Json:
    """`GET /refs`; conversions do not exist here."""
    return {
        "branches": _references("refs/heads/", repository.branches),
        "tags": _references("refs/tags/", repository.tags),
        "converts": [],
        "pullRequests": [],
    }


def timestamp(date: datetime) -> str:
    """The one format of dates that all versions of the client read."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _references(prefix: str, references: dict[str, str]) -> list[Json]:
    return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": oid} for name, oid in sorted(references.items())]


def _sibling(path: str, file: StoredFile, *, blobs: bool) -> Json:
    view: Json = {"rfilename": path}
    if blobs:
        view |= {"size": file.size, "blobId": file.oid}
        if file.is_lfs:
            view["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return view


def _metadata(commit: Commit, store: HubStore) -> Json:
    card = commit.files.get("README.md")
    return front_matter(store.read(card).decode(errors="replace")) if card else {}
