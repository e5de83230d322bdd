"""`manifest.json` of a release folder: the sha256 and size of every other file, and what made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gshf_release.errors import VerificationError
from gshf_release.hashing import sha256_file, sha256_json
from gshf_release.run.directory import write_json

NAME = "manifest.json"
SIGNATURE = "manifest.json.sig"
"""Signs the manifest, so the manifest cannot list it."""


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a finished folder; `facts` are versions, seeds, hashes of recipe and policy."""
    write_json(folder / NAME, {"format": 1, "files": files(folder), **facts})


def list_again(folder: Path) -> None:
    """List the files as they are now, and keep the facts."""
    facts = {key: value for key, value in read(folder).items() if key not in ("format", "files")}
    write(folder, facts)


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return `{path: {sha256, size}}` of every file but the manifest, its signature and the client's cache."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {
        name: {"sha256": sha256_file(path), "size": path.stat().st_size}
        for name, path in names.items()
        if name not in (NAME, SIGNATURE, ".gitattributes") and not name.startswith(".cache/")
    }


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        VerificationError: There is none, or it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise VerificationError(f"{folder} has no {NAME}.")
    try:
        document = dict(json.loads(path.read_text(encoding="utf-8")))
        document["files"] = dict(document["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError(f"{path} is damaged.") from error
    return document


def digest(folder: Path) -> str:
    """Return the sha256 of the manifest in canonical form (sorted keys, no spaces): one number for the whole release.

    Raises:
        VerificationError: There is no readable manifest.
    """
    return sha256_json(read(folder))


def differences(folder: Path) -> tuple[int, list[str]]:
    """Return the number of files, and the paths of those that are missing, added or changed.

    Raises:
        VerificationError: There is no readable manifest.
    """
    recorded, found = read(folder)["files"], files(folder)
    return len(found), [name for name in sorted(set(recorded) | set(found)) if recorded.get(name) != found.get(name)]


def verify(folder: Path) -> int:
    """Compare a folder with its manifest; return the number of files checked.

    Raises:
        VerificationError: A file is missing, added or changed, or there is no readable manifest.
    """
    count, wrong = differences(folder)
    if wrong:
        raise VerificationError(f"{folder}: {len(wrong)} file(s) differ from {NAME}: {', '.join(wrong[:5])}.")
    return count
