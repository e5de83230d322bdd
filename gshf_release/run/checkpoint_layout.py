"""Lay out the checkpoints of an unfinished training, and tell whether a profile can go on from them.

A checkpoint ends with a mark, so that one cut by a kill is known. The mark holds the layout.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple, Self

from gshf_release.errors import RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run import trust
from gshf_release.run.directory import write_text

COMPLETE, ASIDE, FOREIGN = "complete", "aside", "foreign"
WHOLE = ("none", "fsdp")
"""What writes the optimiser's state whole; any number of processes can divide it again. DeepSpeed writes a part a process."""


class CheckpointLayout(NamedTuple):
    """Says who wrote a checkpoint."""

    sharding: str
    processes: int

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return the layout of the checkpoints that a profile writes."""
        return cls(profile.sharding, profile.world_size)

    def fits(self, other: CheckpointLayout) -> bool:
        """Return whether what `other` wrote can be read by this one."""
        return self.sharding == other.sharding and (self.sharding in WHOLE or self.processes == other.processes)

    @property
    def pickled(self) -> bool:
        """Return whether such checkpoints are unpickled, which runs whatever they name: DeepSpeed's are (`weights_only=False`).

        Those of one process, of plain data parallelism and of FSDP are read by `torch.load(weights_only=True)`: FSDP's state
        is saved whole (FULL_STATE_DICT), so that the pickled `.metadata` of torch.distributed.checkpoint is not read.
        """
        return self.sharding not in WHOLE

    def __str__(self) -> str:
        """Name it."""
        return f"sharding {self.sharding} on {self.processes} process{'' if self.processes == 1 else 'es'}"


def mark(checkpoint: Path, layout: CheckpointLayout) -> None:
    """Say that a checkpoint is complete, and who wrote it."""
    write_text(checkpoint / COMPLETE, json.dumps(layout._asdict()) + "\n")


def lay_out(scratch: Path, wanted: CheckpointLayout) -> str | None:
    """Put the checkpoints that a training can go on from in place and the others aside; return why it begins again, if so.

    Called before any of the training processes looks for a checkpoint: all must find the same. What is aside comes back for a
    layout that it fits, and goes when the stage is finished. Those that a kill cut go at once, lest their files mix.

    Raises:
        RunError: The folder is a link.
    """
    if scratch.is_symlink():
        raise RunError(f"{scratch} is a link, and checkpoints are moved and removed there.", hint="Remove the link.")
    misfits = set()
    for checkpoint in [*scratch.glob("checkpoint-*"), *scratch.glob(f"{ASIDE}/*/checkpoint-*")]:
        if not (checkpoint / COMPLETE).is_file():
            shutil.rmtree(checkpoint)
            continue
        written = _layout(checkpoint)
        fits = wanted.fits(written)
        if not fits and checkpoint.parent == scratch:
            misfits.add(str(written))
        folder = scratch if fits else scratch / ASIDE / "-".join(map(str, written))
        if checkpoint.parent != folder:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / checkpoint.name, ignore_errors=True)
            checkpoint.replace(folder / checkpoint.name)
    if not misfits or any(scratch.glob("checkpoint-*")):
        return None
    return f"the checkpoint of {' and '.join(sorted(misfits))} does not fit {wanted}"


def withhold(scratch: Path, wanted: CheckpointLayout) -> str | None:
    """Put checkpoints aside for good that would be unpickled though this user did not write them; return why, if there are any.

    Called before `lay_out`. From here on, what lies in the folder is this user's.
    """
    if not wanted.pickled or trust.owns(scratch):
        return None
    there = [*scratch.glob("checkpoint-*"), *scratch.glob(f"{ASIDE}/*/checkpoint-*")]
    found = [checkpoint for checkpoint in there if not _is_read_safely(checkpoint)]
    for checkpoint in found:
        folder = scratch / FOREIGN / checkpoint.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / checkpoint.name, ignore_errors=True)
        checkpoint.replace(folder / checkpoint.name)
    scratch.mkdir(parents=True, exist_ok=True)
    trust.own(scratch)
    return (
        "its checkpoint would be unpickled by DeepSpeed, and was not written by this user at this place"
        if found
        else None
    )


def _is_read_safely(checkpoint: Path) -> bool:
    """Return whether a checkpoint says that it is of a layout whose checkpoints are never unpickled; others do not fit it."""
    try:
        return not _layout(checkpoint).pickled
    except (OSError, ValueError, TypeError):  # cut, or not what this package writes
        return False


def _layout(checkpoint: Path) -> CheckpointLayout:
    """Return who wrote a complete checkpoint."""
    return CheckpointLayout(**json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
