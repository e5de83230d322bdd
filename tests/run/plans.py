"""Recipes, profiles and small stage graphs for the tests of the run directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from gshf_release.run.stage import Stage, Task
from tests.conftest import REPOSITORY
from tests.run.work import stage


def recipe(**changes: Any) -> Recipe:
    """Return a small valid recipe."""
    content: dict[str, Any] = {
        "name": "small",
        "base": {"model": "b"},
        "reward": {"model": "r"},
        "evaluation": {"second_scorer": {"model": "s"}},
    }
    return Recipe.model_validate(content | changes)


RECIPE = recipe()
PROFILES = {
    "here": Profile(),
    "worker": Profile(stages="worker"),
    "parallel": Profile(parallel_workers=2),
}


def begin(path: Path, recipe: Recipe = RECIPE, profile: Profile = PROFILES["here"]) -> RunDirectory:
    """Return the run at `path`."""
    return RunDirectory.create(path, recipe, profile)


def without_torch(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a process that starts fast, because there is no torch in it."""
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
    return [sys.executable, "-c", code, module, *arguments]


def chain(*works: str) -> list[Stage]:
    """Return stages s1, s2, ... each of which reads the one before."""
    return [
        stage(f"s{number}", *([f"s{number - 1}"] if number > 1 else []), work=work)
        for number, work in enumerate(works, 1)
    ]


def content(run: RunDirectory) -> dict[str, bytes]:
    """Return every finished file: all but the journal, the locks and the profile, which says where the run was."""
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file() and path.name not in ("journal.jsonl", "profile.yaml") and ".locks" not in path.parts
    }


def start(run: Path, profile: str, *works: str) -> subprocess.Popen[str]:
    """Start the execution of a chain in a process of its own."""
    command = [sys.executable, "-m", "tests.run.work", str(run), profile, ",".join(works)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


class Heard(SilentObserver):
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.notices: list[str] = []

    def started(self, task: Task, position: int, total: int) -> Any:
        """Keep the label."""
        self.begun.append(f"{task.label} ({position} of {total})")
        return super().started(task, position, total)

    def notice(self, text: str) -> None:
        """Keep the text."""
        self.notices.append(text)
