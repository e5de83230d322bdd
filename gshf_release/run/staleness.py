"""Numbers that no longer belong to their run: its recipe changed, or a redo of what they were made from was interrupted.

`results.json` merges the cells of every stage, and a stage's cells stay until it is done again. In between they are numbers of
another recipe than the one beside them. What a stage was made with stands in its manifest; what its inputs were made with, in
the journal, which notes every change of the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gshf_release.recipe import Recipe
from gshf_release.recipe.differences import differences
from gshf_release.run.directory import CHANGED_RECIPE, RunDirectory
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Stage, check_graph, tasks

NAMED = 4
"""Stages that a line names before it counts the others."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """Records what is not of the recipe that the run has now."""

    stages: tuple[str, ...]
    """Whose numbers are stale, in order."""
    others: int
    """Stages whose numbers are up to date."""
    changes: Mapping[str, tuple[Any, Any]]
    """`{key: (value they were made with, value in the recipe)}`."""
    unfinished: tuple[str, ...]
    """What must be done again for them, in order."""

    @property
    def line(self) -> str:
        """One line to stand before every number."""
        if self.changes:
            made, now = (", ".join(texts) for texts in zip(*self._values(), strict=True))
            why = f"made with {made}; the recipe now says {now}"
        else:
            why = f"made before {self.unfinished[0]} was changed or begun again"
        if not self.others:
            return f"Stale: the numbers were {why}."
        return (
            f"Stale: numbers were {why}: those of {_listed(self.stages)}. The others are newer; do not compare the two."
        )

    def _values(self) -> Iterator[tuple[str, str]]:
        alone = len(self.changes) == 1
        for key, (then, now) in self.changes.items():
            yield f"{key} {_shown(then)}", _shown(now) if alone else f"{key} {_shown(now)}"


def find(run: RunDirectory, recipe: Recipe | None = None, stages: Sequence[Stage] | None = None) -> Staleness | None:
    """Return what is stale of a run's numbers, or None.

    Args:
        run: The run.
        recipe: What it is compared with; None is its own.
        stages: All of its stages; None takes those of its plan.
    """
    recipe = recipe or run.recipe
    by_name = check_graph(list(stages) if stages is not None else run.plan)
    outdated = _outdated(run, recipe, by_name)
    measured = [stage for stage in by_name.values() if stage.numbers and run.results(stage).exists()]
    stale = [stage for stage in measured if outdated[stage.name]]
    if not stale:
        return None
    behind = _with_inputs(stale, by_name)
    changes = {**_by_journal(run, recipe, stale), **_by_manifests(run, recipe, behind)}
    unfinished = tuple(stage.name for stage in behind if outdated[stage.name] is _OWN)
    return Staleness(tuple(stage.name for stage in stale), len(measured) - len(stale), changes, unfinished)


_OWN, _INHERITED = "itself", "by an input"


def _outdated(run: RunDirectory, recipe: Recipe, by_name: Mapping[str, Stage]) -> dict[str, str]:
    """Return for each stage whether it is outdated itself or by what it reads, directly or not; empty if it is neither."""
    found: dict[str, str] = {}
    for stage in by_name.values():
        conditions = (state(task, run, recipe, by_name, hashes=False) for task in tasks([stage]))
        if any(condition in (State.CHANGED, State.MISSING) for condition in conditions):
            found[stage.name] = _OWN
        else:
            found[stage.name] = _INHERITED if any(found[item.stage] for item in stage.inputs) else ""
    return found


def _with_inputs(stages: Sequence[Stage], by_name: Mapping[str, Stage]) -> list[Stage]:
    """Return the stages and all that they read, directly or not, in order."""
    names = {stage.name for stage in stages}
    for stage in reversed(list(by_name.values())):
        if stage.name in names:
            names |= {item.stage for item in stage.inputs}
    return [stage for stage in by_name.values() if stage.name in names]


def _by_manifests(run: RunDirectory, recipe: Recipe, stages: Sequence[Stage]) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose value in a manifest is not the recipe's."""
    document = recipe.model_dump(mode="json")
    found: dict[str, tuple[Any, Any]] = {}
    for task in tasks(list(stages)):
        for key, then in (run.manifest(task) or {}).get("keys", {}).items():
            found |= differences(then, _value(document, key), key)
    return found


def _by_journal(run: RunDirectory, recipe: Recipe, stale: Sequence[Stage]) -> dict[str, tuple[Any, Any]]:
    """Return the keys that changed since the first of the stale numbers were made, with their value of then."""
    labels = {task.label for task in tasks(list(stale))}
    journal = run.journal()
    finished = {entry["stage"]: place for place, entry in enumerate(journal) if entry["event"] == "finished"}
    first = min((place for label, place in finished.items() if label in labels), default=len(journal))
    document = recipe.model_dump(mode="json")
    found: dict[str, tuple[Any, Any]] = {}
    for entry in journal[first:]:
        if entry["event"] == CHANGED_RECIPE:
            for key, (then, _) in entry["keys"].items():
                if not key.startswith("release."):  # no number depends on those
                    found.setdefault(key, (then, _value(document, key)))
    return {key: values for key, values in found.items() if values[0] != values[1]}


def _value(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
