"""A stage is a declaration without I/O: what it is, reads, puts out, and which function does its work.

Its identity is a name with a version. A change that alters what the stage puts out raises the version, and finished outputs
count as changed. The work itself is a string `"package.module:function"`, resolved when the stage runs: `run/` knows no room
above it, and moved code leaves finished runs finished.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gshf_release.errors import VerificationError

RESULTS = "results"

Kind = Literal[
    "", "sampling", "scoring", "log-ratios", "reference", "measuring", "training", "reward training", "judging", "other"
]
"""What the time of a stage goes into. `scoring` is by a reward model, `log-ratios` and `reference` are log-probabilities of
responses and pairs, `measuring` is the validation; `other` reads and writes files, and is estimated to take no time."""
PREPARATION, EVALUATION, RELEASE = "preparation", "evaluation", "release"


def iteration_row(iteration: int) -> str:
    """Return what an iteration is called in stages and tables: `iteration-3`."""
    return f"iteration-{iteration}"


def iteration_stage(iteration: int, stage: str) -> str:
    """Return the name of an iteration's stage: `iteration-3/pairs`."""
    return f"{iteration_row(iteration)}/{stage}"


def is_iteration(row: str) -> bool:
    """Return whether a row of a table, or a stage, is an iteration's."""
    return row.startswith("iteration-")


def iteration_part(iteration: int) -> str:
    """Return the part of a run that an iteration is: `iteration 3`."""
    return f"iteration {iteration}"


class Parameters(BaseModel):
    """Hold the facts of a stage beside the recipe: declared with it, stored as JSON, read back by its work."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return them as a stage is declared with them."""
        return self.model_dump(mode="json")


P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Input:
    """A file or folder that another stage puts out.

    With scope `shard`, shard k reads only shard k of it and may start as soon as that one is finished. The file `results`
    means the other stage's cells.
    """

    stage: str
    file: str
    scope: Literal["all", "shard"] = "all"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run: inputs, outputs and the recipe keys it reads decide whether it must run again."""

    name: str
    """Also its folder in the run, for example `iteration-1/samples`."""
    work: str
    """`package.module:function`; called with a StageContext, writes the outputs. No part of the fingerprint."""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    """Files or folders the work writes."""
    keys: tuple[str, ...] = ()
    """Dotted recipe keys that the work reads; they are part of the fingerprint."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What `Parameters.as_json` returns, for example `{"iteration": 1}`; part of the fingerprint."""
    shards: int = 1
    numbers: str = ""
    """`package.module:function` that computes the stage's result cells from its inputs and outputs alone, so that
    `verify` can compute them again. No part of the fingerprint."""
    identity: str = ""
    """`name/version`, for example `select-pairs/1`: part of the fingerprint. Raise the version when the outputs or cells of
    equal inputs change."""
    kind: Kind = ""
    part: str = PREPARATION
    """Of the run: `preparation`, `iteration t`, `evaluation` or `release`."""
    runs_in: str = ""
    """The environment the work needs, no part of the fingerprint: empty for this one, `engine` for that of the profile's
    sampling engine, else a name that `gshf-release setup` takes."""
    distributed: bool = False
    """Whether the work may run in all of the profile's training processes at once, with the same outcome."""
    after: tuple[str, ...] = ()
    """Stages that go first where several workers run, because their outputs spare this one work. They are no inputs: without
    them the outcome is the same, so they are no part of the fingerprint."""

    def typed(self, of: type[P]) -> P:
        """Return the parameters as an instance of their class.

        Raises:
            VerificationError: They are recorded otherwise than this release declares them.
        """
        try:
            return of.model_validate(self.parameters)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))[:100]
            raise VerificationError(
                f"{self.name}: the parameters in plan.json are none of this release's: {where}: {first['msg']}."
            ) from None

    def as_json(self) -> dict[str, Any]:
        """Return the declaration as JSON, for `plan.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the declaration that `as_json` wrote."""
        value = dict(value)
        value["inputs"] = tuple(Input(**entry) for entry in value["inputs"])
        value["outputs"] = tuple(value["outputs"])
        value["keys"] = tuple(value["keys"])
        value["after"] = tuple(value.get("after", ()))
        return cls(**value)

    def __hash__(self) -> int:
        """Stages of one graph differ in their names."""
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Task:
    """One shard of a stage: the unit that is locked, run and resumed."""

    stage: Stage
    shard: int = 0

    @property
    def label(self) -> str:
        """`iteration-1/samples` or `iteration-1/samples 2/4`."""
        return self.stage.name if self.stage.shards == 1 else f"{self.stage.name} {self.shard + 1}/{self.stage.shards}"


def in_part(stages: Iterable[Stage], part: str) -> list[Stage]:
    """Return the stages as those of a part of the run."""
    return [replace(stage, part=part) for stage in stages]


def tasks(stages: list[Stage]) -> list[Task]:
    """Return every shard of every stage, in order of declaration."""
    return [Task(stage, shard) for stage in stages for shard in range(stage.shards)]


def requirements(task: Task, stages: Mapping[str, Stage]) -> list[Task]:
    """Return the tasks whose outputs `task` reads.

    Raises:
        ValueError: An input names an unknown stage or output, or shards that do not correspond.
    """
    needed: dict[tuple[str, int], Task] = {}
    for item in task.stage.inputs:
        source = stages.get(item.stage)
        available = () if source is None else (*source.outputs, *([RESULTS] if source.numbers else []))
        if source is None or item.file not in available:
            raise ValueError(f"{task.stage.name} reads {item.file} of {item.stage}, which no stage puts out")
        if item.scope == "shard" and source.shards != task.stage.shards:
            raise ValueError(f"{task.stage.name} and {source.name} differ in their number of shards")
        shards = [task.shard] if item.scope == "shard" else range(source.shards)
        needed.update({(source.name, shard): Task(source, shard) for shard in shards})
    return list(needed.values())


def predecessors(task: Task, stages: Mapping[str, Stage]) -> list[Task]:
    """Return the tasks that must be finished before `task` starts beside others: what it reads, and what spares it work."""
    sparing = [Task(stages[name], shard) for name in task.stage.after for shard in range(stages[name].shards)]
    return [*requirements(task, stages), *sparing]


def chain_lengths(stages: Sequence[Stage]) -> dict[str, int]:
    """Return for each stage how many stages the longest chain from it to the end has, itself included.

    Of several tasks that could start, the one at the head of the longest chain should: the end waits for it.

    Args:
        stages: In an order in which each comes after its inputs.
    """
    lengths: dict[str, int] = {}
    behind: dict[str, int] = {}
    for stage in reversed(stages):
        lengths[stage.name] = 1 + behind.get(stage.name, 0)
        for source in (*(item.stage for item in stage.inputs), *stage.after):
            behind[source] = max(behind.get(source, 0), lengths[stage.name])
    return lengths


def check_graph(stages: list[Stage]) -> dict[str, Stage]:
    """Return the stages by name, having checked that each reads only what an earlier one puts out.

    Raises:
        ValueError: Two stages share a name, or an input does not come earlier.
    """
    known: dict[str, Stage] = {}
    for stage in stages:
        if stage.name in known:
            raise ValueError(f"two stages are called {stage.name}")
        requirements(Task(stage), known)
        known[stage.name] = stage
    return known


def resolve(reference: str) -> Callable[..., Any]:
    """Return the function that `"package.module:function"` names."""
    module, _, name = reference.partition(":")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{reference} is not a function")
    return function  # type: ignore[no-any-return]
