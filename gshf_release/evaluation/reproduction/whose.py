"""Whose judgments, answers and runs were given: those of another model contradict no claim and confirm none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gshf_release.errors import DataError
from gshf_release.evaluation.reproduction.claims import Reported
from gshf_release.evaluation.reproduction.evidence import Measured

FILES = ("judgments", "answers")
"""Rungs whose evidence is a file that names its model; a run has the name of a folder, which proves nothing."""


def check(reported: Reported, measured: Sequence[Measured]) -> list[str]:
    """Return what the user should hear: of every file or run whose model cannot be told from its name.

    Raises:
        DataError: A file names another model than the claims are about; the message has both names.
    """
    found = {(entry.place, entry.row): entry for entry in measured if entry.model is not None}
    return [line for entry in found.values() if (line := _check(reported, entry))]


def _check(reported: Reported, entry: Measured) -> str:
    names, model = reported.names_of(entry.row), str(entry.model)
    claimed = f"the claims on {entry.row} are about {names[0] if names else 'a model that they do not name'}"
    if not model:
        return f"{entry.place} names no model; {claimed}. That it is this one was not checked."
    if any(_same(model, name) for name in names):
        return ""
    others = {name for row in reported.rows if row["row"] != entry.row for name in reported.names_of(row["row"])}
    if entry.rung in FILES and (names or any(_same(model, name) for name in others)):
        raise DataError(
            f"{entry.place} is about {model!r}, {claimed}.",
            hint=f"Give the files of that model, or name {model!r} under `models` in your copy of the claims.",
        )
    return f"{entry.place} is about {model!r}, {claimed}. That they are one model was not checked."


def _same(name: str, other: str) -> bool:
    return _plain(name) == _plain(other)


def _plain(name: str) -> str:
    """Return a name without its owner, case and separators: `sfairXC/FsfairX-Zephyr-Chat-v0.1` is `fsfairxzephyrchatv01`."""
    own = re.split(r"/|--", name)[-1]
    return re.sub(r"[\W_]+", "", own.casefold())
