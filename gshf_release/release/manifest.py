"""`manifest.json` of a release folder: the sha256 and size of every other file, and what made them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gshf_release.data import documents
from gshf_release.data.hashing import sha256_file, sha256_json
from gshf_release.errors import VerificationError
from gshf_release.run.directory import write_json
from gshf_release.run.schema import is_inner_path

NAME = "manifest.json"
SIGNATURE = "manifest.json.sig"
"""Signs the manifest, so the manifest cannot list it."""
CLIENTS_CACHE = re.compile(
    r"\.cache/huggingface/(?:\.gitignore|CACHEDIR\.TAG|trees/[0-9a-f]+\.json|.*\.(?:metadata|lock|incomplete))"
)
"""What the Hub's client leaves in a folder that it downloads into; no loader looks there."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def write_release_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a finished folder; `facts` are versions, seeds, hashes of recipe and policy."""
    write_json(folder / NAME, {"format": 1, "files": files(folder), **facts})


def list_again(folder: Path) -> None:
    """List the files as they are now, and keep the facts."""
    facts = {key: value for key, value in read_release_manifest(folder).items() if key not in ("format", "files")}
    write_release_manifest(folder, facts)


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return `{path: {sha256, size}}` of every file but the manifest, its signature and the client's cache."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {
        name: {"sha256": sha256_file(path), "size": path.stat().st_size}
        for name, path in names.items()
        if name not in (NAME, SIGNATURE, ".gitattributes") and not CLIENTS_CACHE.fullmatch(name)
    }


def oddities(folder: Path) -> list[str]:
    """Return a line for each entry of a folder that no hash speaks for: links, pipes, devices, and names that collide."""
    wrong, spellings = [], dict[str, str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            wrong.append(f"{name} is a symbolic link; a release holds files only.")
        elif not path.is_file() and not path.is_dir():
            wrong.append(f"{name} is a pipe or a device; a release holds files only.")
        elif not is_inner_path(name):
            wrong.append(f"{name!r} is no name for a file of a release.")
        if spellings.setdefault(name.casefold(), name) != name:
            wrong.append(f"{name} and {spellings[name.casefold()]} are one file where case does not count.")
    return wrong


def read_release_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        VerificationError: There is none, it is damaged, or it vouches for nothing or for files elsewhere.
    """
    path = folder / NAME
    if not path.is_file():
        raise VerificationError(f"{folder} has no {NAME}.")
    try:
        document = documents.read_json(path)
    except ValueError as error:
        raise VerificationError(f"{path} is damaged.", hint=f"{str(error).capitalize()}.") from error
    listed = document.get("files") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        raise VerificationError(f"{path} is damaged.", hint="It lists no files.")
    if not listed:
        raise VerificationError(f"{path} lists no file, so it vouches for nothing.")
    for name, entry in listed.items():
        if not is_inner_path(name) or name == NAME:
            raise VerificationError(f"{path} names {name[:100]!r}, which is no file of the folder.")
        if not _is_entry(entry):
            raise VerificationError(f"{path} has no sha256 and size for {name}.")
    return dict(document)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("size"), int) or isinstance(entry["size"], bool):
        return False
    return isinstance(entry.get("sha256"), str) and SHA256.fullmatch(entry["sha256"]) is not None


def digest(folder: Path) -> str:
    """Return the sha256 of the manifest in canonical form (sorted keys, no spaces): one number for the whole release.

    Raises:
        VerificationError: There is no readable manifest.
    """
    return sha256_json(read_release_manifest(folder))


def differences(folder: Path) -> tuple[int, list[str]]:
    """Return the number of files, and the paths of those that are missing, added or changed.

    Raises:
        VerificationError: There is no readable manifest.
    """
    recorded, found = read_release_manifest(folder)["files"], files(folder)
    return len(found), [name for name in sorted(set(recorded) | set(found)) if recorded.get(name) != found.get(name)]


def verify(folder: Path) -> int:
    """Compare a folder with its manifest; return the number of files checked.

    Raises:
        VerificationError: A file is missing, added or changed, something is no plain file, or there is no readable manifest.
    """
    odd = oddities(folder)
    if odd:
        raise VerificationError(f"{folder}: {odd[0]}")
    count, wrong = differences(folder)
    if wrong:
        raise VerificationError(f"{folder}: {len(wrong)} file(s) differ from {NAME}: {', '.join(wrong[:5])}.")
    return count
