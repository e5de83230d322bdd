"""Recompute every hash and every number of a run, or every hash of a release folder."""

from __future__ import annotations

import math
from typing import NamedTuple

from gshf_release.errors import VerificationError
from gshf_release.release import manifest
from gshf_release.results import Cell, read_cells
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.manifest import State, damage, state
from gshf_release.run.stage import Stage, Task, check_graph, resolve, tasks


class Verified(NamedTuple):
    """How much was recomputed and found equal."""

    files: int
    numbers: int
    unfinished: int


def verify_run(run: RunDirectory, *, hashes_only: bool = False) -> Verified:
    """Recompute what a run has finished.

    Raises:
        VerificationError: Names the files whose bytes changed, or the numbers that do not come out as recorded.
    """
    files = numbers = unfinished = 0
    wrong: list[str] = []
    finished: list[Stage] = []
    recipe, by_name = run.recipe, check_graph(run.plan)
    for task in tasks(run.plan):
        recorded = run.manifest(task)
        if recorded is None or state(task, run, recipe, by_name, hashes=False) is not State.FINISHED:
            unfinished += 1
            continue
        finished.append(task.stage)
        wrong += damage(task, run, recorded)
        files += sum(len(output["files"]) for output in recorded["outputs"].values())
    if wrong:
        raise VerificationError(f"{len(wrong)} file(s) are not what was recorded: {', '.join(wrong[:5])}.")
    for folder in sorted((run.path / "release").glob("*/*")):
        if (folder / manifest.NAME).is_file():
            files += manifest.verify(folder)
    if not hashes_only:
        numbers = sum(_verify_numbers(run, stage) for stage in finished if stage.numbers)
        if not unfinished:
            _verify_merge(run)
    return Verified(files, numbers, unfinished)


def _verify_numbers(run: RunDirectory, stage: Stage) -> int:
    context = StageContext(run, run.recipe, run.profile, Task(stage), finished=True)
    recomputed: list[Cell] = resolve(stage.numbers)(context)
    recorded = read_cells(run.results(stage))
    if len(recomputed) != len(recorded):
        raise VerificationError(f"{stage.name}: {len(recorded)} numbers are recorded, {len(recomputed)} come out.")
    for found, expected in zip(recomputed, recorded, strict=True):
        if found.key != expected.key or not _close(found, expected):
            raise VerificationError(
                f"{stage.name}: {expected.metric} of {expected.row} is recorded as {expected.value}, computed as {found.value}."
            )
    return len(recorded)


def _close(found: Cell, expected: Cell) -> bool:
    pairs = [(found.value, expected.value), (found.standard_error, expected.standard_error), (found.n, expected.n)]
    return all(a == b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)


def _verify_merge(run: RunDirectory) -> None:
    merged = run.path / "results.json"
    stages = [stage for stage in run.plan if stage.numbers and run.results(stage).exists()]
    expected = [entry for stage in stages for entry in read_cells(run.results(stage))]
    if merged.exists() and read_cells(merged) != expected:
        raise VerificationError("results.json is not the merge of results/*.json.")
