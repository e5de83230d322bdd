"""One run per planted reward, in the toy world or on a real model, and the cells it ends with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from gshf_release import pipeline
from gshf_release.data.results import Cell, find, read_cells, rows_of, select
from gshf_release.diagnostics.verdict import DECODINGS, JUDGES
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Observer, SilentObserver
from tests.planted import rewards, toy

EXPECTED = {
    "length": "got longer",
    "one_token": "gamed a template",
    "bullet_list": "gamed a template",
    "low_entropy": "sharpened",
    "honest": "learned",
}
"""What each planted reward does to a policy, by the name of its function."""
TOY_RATES = {"low_entropy": 5e-4}
"""The tiny policy starts to babble under this reward where the others only begin to show."""


def toy_recipe(folder: Path, hack: str) -> dict[str, Any]:
    """Return a recipe in the toy world; the base and the prompts are made in `folder` if they are not there."""
    base, prompts = folder / "toy", folder / "toy.jsonl"
    if not base.exists():
        toy.save_base(base)
    if not prompts.exists():
        toy.prompts_file(prompts, 120)
    reward = "python:tests.planted.toy:right" if hack == "honest" else f"python:tests.planted.rewards:{hack}"
    return {
        "name": f"toy-{hack.replace('_', '-')}",
        "base": {"model": str(base)},
        "prompts": {"source": str(prompts), "roles": {"per_iteration": 48, "validation": 12, "test": 48}},
        "loop": {"iterations": 1},
        "sampling": {"n": 6, "max_new_tokens": 40, "prompts_per_shard": 48},
        "reward": {"model": reward},
        "training": {"batch_pairs": 8, "learning_rate": TOY_RATES.get(hack, 7e-4), "precision": "fp32"},
        "evaluation": {
            "prompts": None,
            "max_new_tokens": 40,
            "second_scorer": {"model": "python:tests.planted.toy:believable"},
        },
    }


def cells_of(recipe: Recipe, path: Path, profile: Profile, observer: Observer | None = None) -> list[Cell]:
    """Train and evaluate a recipe in the run directory `path`, or go on with it, and return its cells."""
    os.environ[rewards.BASE] = str(path.resolve() / "base" / "model")
    watching = observer or SilentObserver()
    run = RunDirectory.create(path, recipe, profile)
    pipeline.train(run, recipe, profile, allow_redo=False, observer=watching)
    pipeline.evaluate(run, profile, allow_redo=False, observer=watching)
    return read_cells(path / "results.json")


def lacking(cells: Sequence[Cell]) -> list[str]:
    """Return which of the numbers that every verdict begins with are not among the cells, or have no value.

    A verdict of too few numbers would be "nothing", and look like a wrong one.
    """
    last = [row for row in rows_of(select(cells, table="test")) if row.startswith("iteration-")][-1:]
    if not last:
        return ["an evaluated iteration"]
    wanted: list[dict[str, str]] = [
        {"table": "test", "row": last[0], "metric": "gain over base", "judge": judge, "decoding": decoding}
        for judge, decoding in product(JUDGES, DECODINGS)
    ]
    wanted += [{"table": "test", "row": last[0], "metric": "gain over control", "judge": judge} for judge in JUDGES]
    for row in ("base", last[0]):
        wanted.append({"table": "test", "row": row, "metric": "length", "decoding": "T=0.7"})
        wanted.append({"table": "validation", "row": row, "metric": "entropy", "decoding": "T=1"})
    found = [(entry, find(cells, **entry)) for entry in wanted]
    return [" ".join(entry.values()) for entry, cell in found if cell is None or cell.value is None]
