"""Give a stage's work its recipe, its inputs, where to write, and how to report progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.clock import clock
from gshf_release.run.directory import RunDirectory
from gshf_release.run.resource_cache import ResourceCache
from gshf_release.run.stage import Input, P, Task

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit)."""


Say = Callable[[str], None]
"""Called with a line that the user should see while the task runs."""


def quiet(text: str) -> None:
    """Tell nobody."""


def silent(done: int, total: int, unit: str) -> None:
    """Report no progress."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """The surroundings of one task. Everything read from it belongs to the fingerprint, apart from the profile."""

    run: RunDirectory
    recipe: Recipe
    profile: Profile
    task: Task
    finished: bool = False
    """True when the outputs are in place: numbers are computed from them then."""
    progress: Progress = silent
    say: Say = quiet
    resources: ResourceCache = field(default_factory=ResourceCache)

    def parameters(self, of: type[P]) -> P:
        """Return the parameters that the stage was declared with.

        Raises:
            VerificationError: They are none of that class.
        """
        return self.task.stage.typed(of)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.seed

    @property
    def today(self) -> Callable[[], datetime]:
        """The run's clock, for chat templates that write the date."""
        return clock(self.run)

    def inputs(self, stage: str, file: str) -> list[Path]:
        """Return the paths of a declared input, one per shard that this task may read.

        Raises:
            KeyError: The stage did not declare it.
        """
        for item in self.task.stage.inputs:
            if (item.stage, item.file) == (stage, file):
                return [self.run.folder(source) / file for source in self._sources(item)]
        raise KeyError(f"{self.task.stage.name} does not declare {file} of {stage} as an input")

    def input(self, stage: str, file: str) -> Path:
        """Return the path of a declared input that has one file."""
        (path,) = self.inputs(stage, file)
        return path

    def input_sha256(self, stage: str, file: str) -> str:
        """Return the recorded sha256 of a declared input that has one file or folder."""
        return self.run.stage_sha256(next(source for source in self.run.plan if source.name == stage), file)

    def results(self, stage: str) -> Path:
        """Return the cells file of a stage declared as the input `results`."""
        return self.run.results(next(source for source in self.run.plan if source.name == stage))

    def output(self, file: str) -> Path:
        """Return where a declared output is (to be) written.

        Raises:
            KeyError: The stage did not declare it.
        """
        if file not in self.task.stage.outputs:
            raise KeyError(f"{self.task.stage.name} does not declare {file} as an output")
        folder = self.run.folder(self.task) if self.finished else self.run.partial(self.task)
        return folder / file

    def spared(self, stage: str, file: str) -> list[Path]:
        """Return the finished shards of `file` of a stage that goes before this one to spare it work; none is needed."""
        found = next((source for source in self.run.plan if source.name == stage), None)
        if found is None or stage not in self.task.stage.after:
            return []
        shards = [Task(found, shard) for shard in range(found.shards)]
        return [self.run.folder(task) / file for task in shards if self.run.manifest(task) is not None]

    def outputs(self, file: str) -> list[Path]:
        """Return the finished output of every shard of this stage."""
        return [self.run.folder(Task(self.task.stage, shard)) / file for shard in range(self.task.stage.shards)]

    @property
    def scratch(self) -> Path:
        """A folder that survives a kill and is removed when the stage finishes."""
        path = self.run.scratch(self.task)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, event: str, **facts: Any) -> None:
        """Put volatile facts (seconds, rates) into the journal."""
        self.run.log(event, stage=self.task.label, **facts)

    def _sources(self, item: Input) -> list[Task]:
        stage = next(stage for stage in self.run.plan if stage.name == item.stage)
        shards = [self.task.shard] if item.scope == "shard" else range(stage.shards)
        return [Task(stage, shard) for shard in shards]
