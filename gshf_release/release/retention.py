"""Keep the large files of a run that the recipe asks for (`loop.keep`), and remove the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

from gshf_release.loop import policy_stage
from gshf_release.optimization.policy import OPTIMISER
from gshf_release.release.stages import final_iteration
from gshf_release.run.directory import RunDirectory
from gshf_release.run.pruning import inside, prunable, prune


def superfluous(run: RunDirectory) -> list[Path]:
    """Return the folders that `prune_run` would remove.

    Raises:
        RunError: Something unfinished still needs one of them.
    """
    return [*prunable(run, _weights(run)), *_optimisers(run)]


def prune_run(run: RunDirectory) -> int:
    """Remove them and return the bytes freed.

    Raises:
        RunError: Something unfinished still needs one of them.
    """
    freed = prune(run, _weights(run))
    for path in _optimisers(run):
        freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
    return freed


def _others(run: RunDirectory) -> list[int]:
    final = final_iteration(run)
    return [number for number in range(1, run.recipe.loop.iterations + 1) if number != final]


def _weights(run: RunDirectory) -> list[tuple[str, str]]:
    if run.recipe.loop.keep.weights == "all":
        return []
    return [(policy_stage(number), "model") for number in _others(run)]


def _optimisers(run: RunDirectory) -> list[Path]:
    """Return the optimiser states that an earlier version of the recipe kept and this one does not."""
    kept = run.recipe.loop.keep.optimiser
    numbers = range(1, run.recipe.loop.iterations + 1) if kept == "none" else _others(run) if kept == "final" else []
    paths = [run.path / policy_stage(number) / OPTIMISER for number in numbers]
    return [inside(run, path) for path in paths if path.exists()]
