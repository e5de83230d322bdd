"""Content hashes of files, folders and JSON values: the identity of everything in a run."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits.

    Raises:
        OSError: It cannot be read; a pipe in its place would be waited for, a device never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree(path: Path) -> dict[str, str]:
    """Return `{relative posix path: sha256}` of every file below `path`; a file gives `{"": sha256}`."""
    if path.is_file():
        return {"": sha256_file(path)}
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return {entry.relative_to(path).as_posix(): sha256_file(entry) for entry in files}


def sha256_tree(files: dict[str, str]) -> str:
    """Return one digest for the files of a `tree`; a single file keeps its own sha256."""
    if set(files) == {""}:
        return files[""]
    return sha256_json(files)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values have equal text."""
    return _CANONICAL.encode(value)


def sha256_json(value: Any) -> str:
    """Return the sha256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def seed_from(*parts: str | int) -> int:
    """Return a 63-bit seed derived from `parts` alone, so that draws never depend on order or sharding.

    The convention of the project is `(run seed, purpose, iteration, prompt id, sample index)`.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
