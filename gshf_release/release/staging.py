"""Folders from which a release is sent: copies made of hard links where the file system has them, removed afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gshf_release.release import signing
from gshf_release.release.folders import FINAL, REPOSITORIES, release_folders


@contextlib.contextmanager
def signed(release: Path, name: str, key: Path | None) -> Iterator[Path]:
    """Yield the release folder of a run; with a key, a signed copy, because a run's own files stay as they were recorded."""
    if key is None:
        yield release
        return
    with temporary_beside(release) as copy:
        for source in [folder for suffix in REPOSITORIES for folder in release_folders(release, f"{name}{suffix}")]:
            target = copy / source.relative_to(release)
            linked_copy(source, target)
            signing.sign(target, key)
        if (release / name / FINAL).is_file():
            shutil.copyfile(release / name / FINAL, copy / name / FINAL)
        yield copy


@contextlib.contextmanager
def copied_run(run: Path) -> Iterator[Path]:
    """Yield a copy of a run in which a release can be tried; what a kill left behind and the locks stay where they are."""
    with temporary_beside(run) as folder:
        target = folder / run.resolve().name
        linked_copy(run, target, leave=(".locks", ".scratch", ".partial"))
        yield target


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a folder on the file system of `path`, so that hard links work; elsewhere if nothing may be written there."""
    parent: Path | None = path.resolve().parent
    if not os.access(str(parent), os.W_OK):
        parent = None
    with tempfile.TemporaryDirectory(prefix=".gshf-release-", dir=parent) as folder:
        yield Path(folder)


def linked_copy(source: Path, target: Path, leave: Sequence[str] = ()) -> None:
    """Copy a folder; weights and tables, which nobody edits in place, are linked, all else is copied.

    Args:
        source: The folder.
        target: Where its copy goes.
        leave: Names of folders, at any depth, that are left out.
    """
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and not set(name.parts) & set(leave):
            link_or_copy(path, target / name)


def link_or_copy(path: Path, target: Path) -> None:
    """Bring one file to `target`, by a hard link if it is large and the file system allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".safetensors", ".gguf", ".parquet"):
        with contextlib.suppress(OSError):
            os.link(path.resolve(), target)
            return
    shutil.copyfile(path, target)
