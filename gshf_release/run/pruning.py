"""Removing large outputs that nothing still needs, in a way that the run knows of."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from gshf_release.errors import RunError
from gshf_release.run.directory import RunDirectory, write_json
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Stage, Task, check_graph, requirements, tasks


def prunable(run: RunDirectory, outputs: Sequence[tuple[str, str]]) -> list[Path]:
    """Return the folders of these `(stage, output)` that are still there.

    Raises:
        RunError: A task that reads one of them has not finished.
    """
    by_name = check_graph(run.plan)
    found = []
    for name, file in outputs:
        stage = by_name.get(name)
        if stage is None or not (run.path / name / file).exists():
            continue
        for reader in tasks(_readers(run.plan, stage, file)):
            if state(reader, run, run.recipe, by_name, hashes=False) is not State.FINISHED:
                raise RunError(
                    f"{name}/{file} is still needed: {reader.label} is not finished.",
                    hint=f"Finish the run first: gshf-release eval {run.path}, then publish.",
                )
        found.append(inside(run, run.path / name / file))
    return found


def inside(run: RunDirectory, path: Path) -> Path:
    """Return a path of the run that is about to be removed.

    Raises:
        RunError: It lies elsewhere, by a link.
    """
    if not path.resolve().is_relative_to(run.path.resolve()):
        raise RunError(f"{path} lies outside the run, by a link; prune removes nothing there.")
    return path


def prune(run: RunDirectory, outputs: Sequence[tuple[str, str]]) -> int:
    """Remove these `(stage, output)` and note it in the manifests; return the bytes freed.

    Raises:
        RunError: A task that reads one of them has not finished.
    """
    freed = 0
    for path in prunable(run, outputs):
        task = Task(next(stage for stage in run.plan if run.path / stage.name == path.parent))
        with run.lock(task):
            manifest = run.manifest(task)
            if manifest is None:
                continue
            manifest["pruned"] = sorted({*manifest.get("pruned", []), path.name})
            write_json(run.manifest_path(task), manifest)
            freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
    return freed


def require_present(task: Task, run: RunDirectory, stages: dict[str, Stage]) -> None:
    """Refuse to start a task one of whose inputs was pruned.

    Raises:
        RunError: Names the input and how to have it made again.
    """
    wanted = {(item.stage, item.file) for item in task.stage.inputs}
    for source in requirements(task, stages):
        manifest = run.manifest(source) or {}
        for file in manifest.get("pruned", []):
            if (source.stage.name, file) in wanted:
                path = run.manifest_path(source)
                raise RunError(
                    f"{task.label} needs {source.stage.name}/{file}, which was pruned.",
                    hint=f"Delete {path} to have it made again by the same command.",
                )


def _readers(plan: Sequence[Stage], stage: Stage, file: str) -> list[Stage]:
    return [reader for reader in plan if any((item.stage, item.file) == (stage.name, file) for item in reader.inputs)]
