"""Train the tiny recipe in a process that can be killed: `python -m tests.end_to_end.train_tiny CHECKPOINTS RUN`."""

from __future__ import annotations

import sys
from pathlib import Path

from gshf_release import pipeline
from gshf_release.profile import Profile
from gshf_release.recipe import Recipe, parse
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Quiet
from tests import tiny

EXACT = Profile(inference_precision="fp32", threads=1)


def train(checkpoints: Path, path: Path) -> RunDirectory:
    """Train the tiny recipe at `path`."""
    recipe = parse(Recipe, tiny.recipe(checkpoints), "tiny")
    run = RunDirectory.create(path, recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=Quiet())
    return run


def evaluate(run: RunDirectory) -> None:
    """Evaluate a trained run."""
    pipeline.evaluate(run, EXACT, allow_redo=False, observer=Quiet())


if __name__ == "__main__":
    import torch

    from gshf_release.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    train(Path(sys.argv[1]), Path(sys.argv[2]))
