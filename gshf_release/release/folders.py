"""Release folders on disk: copying them out of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from gshf_release.errors import ReleaseError
from gshf_release.release import manifest
from gshf_release.run.directory import read_json

RESULTS_FILE = "eval/results.json"
"""The cells that a card shows, in the release itself."""

DATA_SETS = ("preferences", "judgments")
"""Suffixes of the repositories that are data sets on the Hub."""
COMPRESSED = {"fp8": "FP8", "gptq:W4A16": "GPTQ-W4A16"}
"""Suffixes of the repositories of compressed-tensors weights, by scheme."""
REPOSITORIES = ("", "-GGUF", *(f"-{label}" for label in COMPRESSED.values()), *(f"-{kind}" for kind in DATA_SETS))
"""Suffixes of all repositories of a release, in the order of their upload."""
FINAL = "final.json"
"""Beside the iterations' folders: which of them `main` on the Hub is to show."""


def final_folder(release: Path, repository: str) -> str | None:
    """Return the name of the folder that `main` is to show, or None if the release does not say."""
    path = release / repository / FINAL
    return f"iter-{read_json(path).get('iteration')}" if path.is_file() else None


def release_folders(release: Path, repository: str) -> list[Path]:
    """Return the finished folders of one repository below a run's `release`, in order of name."""
    return sorted(path.parent for path in release.glob(f"{repository}/*/{manifest.NAME}"))


def copy_release(release: Path, repository: str, out: Path) -> list[Path]:
    """Copy the folders of a release, its GGUF files and data sets too, to `out/<repository>/<part>`, and verify the copies.

    Equal folders are left alone.

    Raises:
        ReleaseError: A folder of that name holds something else.
    """
    copied = []
    for source in [folder for suffix in REPOSITORIES for folder in release_folders(release, f"{repository}{suffix}")]:
        target = out / source.relative_to(release)
        if target.exists():
            if not (target / manifest.NAME).is_file():
                raise ReleaseError(f"{target} exists and is no release.", hint="Choose another folder with --out.")
            if (target / manifest.NAME).read_bytes() != (source / manifest.NAME).read_bytes():
                shutil.rmtree(target)
        if not target.exists():
            temporary = target.with_name(f".{target.name}.partial")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary)
            temporary.replace(target)
        manifest.verify(target)
        copied.append(target)
    final, copy = release / repository / FINAL, out / repository / FINAL
    if final.is_file() and not (copy.is_file() and copy.read_bytes() == final.read_bytes()):
        shutil.copyfile(final, copy)
    return copied
