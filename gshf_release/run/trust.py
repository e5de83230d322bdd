"""Decide whose Python code may be imported: what the user names in a command, never what a run from elsewhere names.

A reward may be a Python function, `python:package.module:function`. The recipe that `train` is given is the user's word, and so
is `--trust-code`. The functions that a command may import travel to its workers in an environment variable. Which of them a
run has used on this machine is noted in the user's cache, so that later commands on the user's own run need no flag.

A checkpoint that is unpickled may be code as well. Whose checkpoints lie in a stage's scratch folder is noted likewise.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from gshf_release.data import documents
from gshf_release.data.assets import cache_folder
from gshf_release.data.hashing import sha256_json
from gshf_release.errors import EngineError
from gshf_release.run.directory import write_json, write_text

VARIABLE = "GSHF_TRUSTED_CODE"
FOLDER = "trusted-code"
OWNER = "owner"
"""A file in a stage's scratch folder, whose random word stands in the user's cache too."""


def allow(references: Iterable[str]) -> None:
    """Let this process and those it starts import these functions."""
    os.environ[VARIABLE] = "\n".join(sorted({*_allowed(), *references}))


def remember(run: Path, references: Iterable[str]) -> None:
    """Allow these functions, and also to later commands of this user on the run that lies there now."""
    named = sorted(set(references))
    allow(named)
    if named:
        write_json(_note(run), {"run": str(run.resolve()), "code": named})


def recall(run: Path) -> None:
    """Allow the functions that this user has run, or said to trust, in the run that lies there."""
    try:
        document = documents.read_json(_note(run))
    except (OSError, ValueError):
        return
    if isinstance(document, dict) and document.get("run") == str(run.resolve()):
        allow(str(reference) for reference in document.get("code", []))


def is_allowed(reference: str) -> bool:
    """Return whether the user has said that a function may be imported."""
    return reference in _allowed()


def require(reference: str) -> None:
    """Refuse to import a function that only a run names.

    Raises:
        EngineError: The user has not said that it may be imported.
    """
    if not is_allowed(reference):
        raise EngineError(
            f"{reference} is code that the run names; code of a run from elsewhere is not imported.",
            hint="If it is yours, or you have read it and trust it: eval RUN --trust-code.",
        )


def own(scratch: Path) -> None:
    """Note that the checkpoints that will lie in a stage's scratch folder are this user's."""
    word = secrets.token_hex(16)
    write_text(scratch / OWNER, word)
    write_json(_note(scratch), {"scratch": str(scratch.resolve()), "word": word})


def owns(scratch: Path) -> bool:
    """Return whether this user, and nobody else, has written the checkpoints in a stage's scratch folder at this place."""
    try:
        document = documents.read_json(_note(scratch))
    except (OSError, ValueError):
        return False
    return bool(document == {"scratch": str(scratch.resolve()), "word": owner(scratch)})


def owner(scratch: Path) -> str:
    """Return the word in a stage's scratch folder that tells whose checkpoints lie there; empty if there is none."""
    try:
        return (scratch / OWNER).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _allowed() -> set[str]:
    return set(os.environ.get(VARIABLE, "").split("\n")) - {""}


def _note(place: Path) -> Path:
    """Return the note of a run, or of a scratch folder, in the user's cache, named after where it lies."""
    return cache_folder() / FOLDER / f"{sha256_json(str(place.resolve()))[:32]}.json"
