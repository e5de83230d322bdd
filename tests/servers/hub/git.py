"""Object ids as git computes them, so that checksums made by the client agree with those the server lists."""

import hashlib
from collections.abc import Mapping
from datetime import datetime

FILE_MODE = "100644"
FOLDER_MODE = "40000"


def object_id(kind: str, content: bytes) -> str:
    """SHA-1 of a git object: header `<kind> <size>`, a zero byte, the content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git stores in place of a large file (git-lfs specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_oids(blob_oids: Mapping[str, str]) -> dict[str, str]:
    """Ids of all folders of a commit.

    Args:
        blob_oids: path of a file to the id of its blob.

    Returns:
        Path of a folder to the id of its tree; the root is the empty string.
    """
    entries: dict[str, list[tuple[str, str, str]]] = {"": []}
    for path, oid in blob_oids.items():
        folder, _, name = path.rpartition("/")
        entries.setdefault(folder, []).append((name, FILE_MODE, oid))
        for ancestor in ancestors(path):
            entries.setdefault(ancestor, [])

    oids: dict[str, str] = {}
    for folder in sorted(entries, key=_depth, reverse=True):
        oids[folder] = _tree_oid(entries[folder])
        if folder:
            parent, _, name = folder.rpartition("/")
            entries[parent].append((name, FOLDER_MODE, oids[folder]))
    return oids


def commit_oid(tree: str, parent: str | None, author: str, date: datetime, message: str) -> str:
    """Id of a commit object with at most one parent."""
    signature = f"{author} <{author}@example.test> {int(date.timestamp())} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
    lines += [f"author {signature}", f"committer {signature}", "", message]
    return object_id("commit", "\n".join(lines).encode())


def ancestors(path: str) -> list[str]:
    """Folders above a path, nearest first, without the root."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


def _tree_oid(entries: list[tuple[str, str, str]]) -> str:
    """Git sorts a folder as if its name ended in a slash."""
    ordered = sorted(entries, key=lambda entry: (entry[0] + "/" * (entry[1] == FOLDER_MODE)).encode())
    return object_id("tree", b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, mode, oid in ordered))
