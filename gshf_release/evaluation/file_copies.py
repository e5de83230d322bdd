"""Files from outside that a run's evaluation needs: questions, others' answers, results of other programs.

They are copied into `evaluations/files/` of the run under their sha256, so that the run can be moved and verified alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import RunError
from gshf_release.run.directory import RunDirectory

FOLDER = "evaluations/files"


def keep_file(run: RunDirectory, source: Path) -> str:
    """Copy a file into the run and return its sha256; a copy that is there already stays."""
    sha256 = sha256_file(source)
    target = run.path / FOLDER / sha256
    if not target.is_file() or sha256_file(target) != sha256:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{sha256}.partial")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    return sha256


def path(run: RunDirectory, sha256: str) -> Path:
    """Return where the run's copy of a file is.

    Raises:
        RunError: It is missing or changed.
    """
    target = run.path / FOLDER / sha256
    if not target.is_file() or sha256_file(target) != sha256:
        raise RunError(
            f"{FOLDER}/{sha256} of {run.path} is missing or changed.", hint="Give the same eval command again."
        )
    return target
