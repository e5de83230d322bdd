"""Small files from outside that a run needs again later: facts, evaluation prompts, offline pairs, published numbers.

They are copied into `inputs/` of the run when they are first read, so that a run that was moved goes on without them. As long
as the file that the recipe names is there, it counts, and an edit of it takes effect; the copy is for when it is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import sha256_tree, tree
from gshf_release.errors import GshfError, RunError
from gshf_release.run.directory import RunDirectory, read_json, write_json
from gshf_release.run.schema import is_inner_path

FOLDER = "inputs"


def keep_input(run: RunDirectory, key: str, reference: str, source: Path) -> None:
    """Copy what a recipe key names into the run, unless these bytes are there already.

    Args:
        run: The run.
        key: Dotted, such as `release.facts`.
        reference: The key's value, for which alone the copy will stand in.
        source: The file or folder.
    """
    folder = run.path / FOLDER / key
    if folder.resolve() in source.resolve().parents:
        return  # the copy itself was read
    sha256 = sha256_tree(tree(source))
    target = folder / sha256[:16] / source.name
    if not target.exists() or sha256_tree(tree(target)) != sha256:
        partial = folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, partial / source.name)
        else:
            shutil.copyfile(source, partial / source.name)
        shutil.rmtree(target.parent, ignore_errors=True)
        partial.replace(target.parent)
    document = {"reference": reference, "file": target.relative_to(folder).as_posix(), "sha256": sha256}
    record = folder / "source.json"
    if not record.is_file() or read_json(record) != document:
        write_json(record, document)
    for stale in folder.iterdir():
        if stale.is_dir() and stale != target.parent:
            shutil.rmtree(stale)


def kept_input(run: RunDirectory, key: str, reference: str) -> Path | None:
    """Return the run's copy of what `reference` named under a recipe key, or None."""
    record = run.path / FOLDER / key / "source.json"
    if not record.is_file():
        return None
    document = read_json(record)
    path = _copy(record, document)
    return path if document.get("reference") == reference and path.exists() else None


def _copy(record: Path, document: Mapping[str, Any]) -> Path:
    """Return the copy that a record is of; in a run from elsewhere it might name, or be a link to, any file of this machine.

    Raises:
        RunError: It is not a plain file or folder beside its record.
    """
    path = record.parent / str(document.get("file"))
    below = path.rglob("*") if path.is_dir() else []
    if is_inner_path(document.get("file")) and not any(entry.is_symlink() for entry in (path.parent, path, *below)):
        return path
    raise RunError(f"{record} names something that is no copy inside the run.", hint="Do not use this run.")


def find_input(run: RunDirectory | None, key: str, reference: str, look: Callable[[], Path]) -> Path:
    """Return what `look` finds outside the run, or the run's own copy where that is gone.

    Raises:
        GshfError: What `look` raises, if the run has no copy.
    """
    try:
        return look()
    except GshfError:
        path = None if run is None else kept_input(run, key, reference)
        if path is None:
            raise
        return path


def damaged_inputs(run: RunDirectory) -> list[str]:
    """Return the run-relative paths of copies whose bytes are not those recorded."""
    wrong = []
    for record in sorted((run.path / FOLDER).glob("*/source.json")):
        document = read_json(record)
        path = _copy(record, document)
        if not path.exists() or sha256_tree(tree(path)) != document.get("sha256"):
            wrong.append(run.relative(path))
    return wrong
