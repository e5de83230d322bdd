"""Recompute every hash and every number of a run, or every hash of a release folder."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from gshf_release.data.results import Cell, read_cells
from gshf_release.errors import GshfError, VerificationError
from gshf_release.release import chat_templates, eval_results, manifest, recomputation
from gshf_release.release.stages import visible
from gshf_release.release.verify_folder import verify_folder
from gshf_release.rewards.settings import user_code_of
from gshf_release.run import input_copies
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.manifest import State, damage, input_hashes, state
from gshf_release.run.stage import Stage, Task, check_graph, tasks


class Verified(NamedTuple):
    """Records how much was recomputed and found equal; `numbers` are the run's own, without those of its release folders."""

    files: int
    numbers: int
    unfinished: int


def verify_run(run: RunDirectory, *, hashes_only: bool = False, key: Path | None = None) -> Verified:
    """Recompute what a run has finished.

    Numbers are recomputed only from files whose bytes are those recorded.

    Args:
        run: The run.
        hashes_only: Compare sha256 and signatures alone.
        key: Public key that must have signed the release folders.

    Raises:
        VerificationError: One line for each file whose bytes changed, or each number that does not come out as recorded.
    """
    finished, files, unfinished, wrong = _hashes(run)
    replaced = _replaced_inputs(run)
    numbers = 0
    if not wrong:
        for folder in _folders(run):
            try:
                checked = verify_folder(folder, hashes_only=hashes_only, key=key)
                files += checked.files
            except VerificationError as error:
                wrong += [f"{run.relative(folder)}: {line}" for line in error.message.split("\n")]
    if not hashes_only and not wrong:
        numbers += _numbers(run, finished, complete=not unfinished, wrong=wrong)
        wrong += _release_differences(run)
    if wrong or replaced:
        raise VerificationError("\n".join([*wrong, *replaced]))
    return Verified(files, numbers, unfinished)


def unchecked(run: RunDirectory, unfinished: int) -> list[str]:
    """Return in words what `verify_run` leaves unverified of a run.

    Args:
        run: The run.
        unfinished: How many of its tasks are not finished, as `verify_run` counts them.
    """
    found = [f"the scores of {name}, which is code that the run names" for name in user_code_of(run.recipe)]
    if unfinished and (run.path / "results.json").is_file():
        found.append("results.json, which is the merge of all stages' numbers once all are finished")
    return found


def _hashes(run: RunDirectory) -> tuple[list[Stage], int, int, list[str]]:
    """Return the finished stages, how many files they have, how many tasks are not finished, and what differs."""
    files = unfinished = 0
    wrong: list[str] = []
    finished: list[Stage] = []
    plan, recipe = run.plan, run.recipe
    by_name = check_graph(plan)
    wrong += [line for line in map(recomputation.difference, plan) if line]
    for task in tasks(plan):
        recorded = run.manifest(task)
        if recorded is None and os.path.lexists(run.manifest_path(task)):
            wrong.append(
                f"{run.relative(run.manifest_path(task))}: damaged; it does not say what {task.label} put out."
            )
        if recorded is None or state(task, run, recipe, by_name, hashes=False) is not State.FINISHED:
            unfinished += 1
            continue
        finished.append(task.stage)
        wrong += [f"{name}: not the bytes that were recorded." for name in damage(task, run, recorded)]
        files += sum(len(output["files"]) for output in recorded["outputs"].values())
    wrong += [f"{name}: not the bytes that were recorded." for name in input_copies.damaged_inputs(run)]
    return finished, files, unfinished, wrong


def _replaced_inputs(run: RunDirectory) -> list[str]:
    """Return a line for each input that is not the one a finished task was made from; a changed recipe key is no fault."""
    by_name = check_graph(run.plan)
    wrong = []
    for task in tasks(run.plan):
        recorded, present = run.manifest(task), input_hashes(task, run, by_name)
        if recorded is not None and present is not None:
            changed = [name for name, sha256 in present.items() if recorded["inputs"].get(name, sha256) != sha256]
            wrong += [f"{task.label}: made from another {name} than the one that is there." for name in changed]
    return wrong


def _folders(run: RunDirectory) -> list[Path]:
    return [path.parent for path in sorted((run.path / "release").glob(f"*/*/{manifest.NAME}"))]


def _numbers(run: RunDirectory, finished: list[Stage], *, complete: bool, wrong: list[str]) -> int:
    count = 0
    for stage in dict.fromkeys(stage for stage in finished if stage.numbers):
        try:
            count += _verify_numbers(run, stage)
        except GshfError as error:
            wrong.append(error.message)
    if complete:
        try:
            _verify_merge(run)
        except GshfError as error:
            wrong.append(error.message)
    return count


def _release_differences(run: RunDirectory) -> list[str]:
    """Return where released cells are not those of the run, or a GGUF file's template not that of its weights."""
    wrong = []
    merged = run.path / "results.json"
    for folder in _folders(run):
        document = manifest.read_release_manifest(folder)
        if (folder / eval_results.RESULTS).is_file() and merged.is_file():
            known = visible(read_cells(merged), int(document["iteration"]))
            if any(entry not in known for entry in read_cells(folder / eval_results.RESULTS)):
                wrong.append(f"{run.relative(folder)}/{eval_results.RESULTS}: not the cells of results.json.")
        weights = (
            folder.parent.with_name(folder.parent.name.removesuffix("-GGUF")) / f"iter-{document.get('iteration')}"
        )
        if folder.parent.name.endswith("-GGUF") and weights.is_dir():
            found, expected = chat_templates.sha256(folder), chat_templates.sha256(weights)
            if found != expected:
                wrong.append(f"{run.relative(folder)}: the chat template is not that of {run.relative(weights)}.")
    return wrong


def _verify_numbers(run: RunDirectory, stage: Stage) -> int:
    context = StageContext(run, run.recipe, run.profile, Task(stage), finished=True)
    recorded = read_cells(run.results(stage))
    try:
        recomputed = recomputation.compute_cells(context)
    except GshfError:
        raise
    except Exception as error:  # the files have the bytes that the manifest names, which anybody can write
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise VerificationError(f"{stage.name}: its numbers cannot be computed ({reason}).") from error
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
