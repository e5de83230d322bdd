"""Keep what a document needs of a finished run: recipe, the cells of tables and figures, and which test prompts were passed.

A run is gigabytes; what is kept is a few kilobytes, small enough for a repository, and every number of the document can be
computed from it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gshf_release.data.records import RuleCheck
from gshf_release.data.results import read_cells, write_cells
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT
from gshf_release.diagnostics.validation import BOUND, LIKELY
from gshf_release.errors import RunError
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.rewards.stages import CHECKS_FILE
from gshf_release.run.directory import DOCUMENT, RunDirectory, read_json, write_json
from gshf_release.run.stage import is_iteration, tasks

METRICS = (
    *("gain over base", "gain over control", "score", ALL_RULES_KEPT, f"{ALL_RULES_KEPT}, gain", KL_TO_BASE, BOUND),
    *("length", "cut", "win rate", "pairs", "optimiser steps", LIKELY),
)
"""Which cells are kept."""
FILES = ("recipe.yaml", DOCUMENT)
PASSED = "passed.json"


class Passed(NamedTuple):
    """Records who kept all rules of which test prompt."""

    prompts: list[str]
    """Ids."""
    by_row: Mapping[str, Mapping[str, str]]
    """`{decoding: {row: one character a prompt, 1 or 0}}`."""

    def shares(self, row: str, decoding: str) -> list[float]:
        """Return 1.0 or 0.0 for each prompt."""
        return [float(mark) for mark in self.by_row[decoding][row]]


def keep(run: RunDirectory, folder: Path) -> None:
    """Write what is kept of an evaluated run into a folder.

    Raises:
        RunError: The run has no results, or its reward checks no rules.
    """
    if not (run.path / "results.json").is_file():
        raise RunError(f"{run.path} has no results yet.", hint="Run: gshf-release eval RUN")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(run.path / name, folder / name)
    write_cells(
        [cell for cell in read_cells(run.path / "results.json") if cell.metric in METRICS], folder / "results.json"
    )
    passed = passed_prompts(run)
    write_json(folder / PASSED, {"prompts": passed.prompts, "by_row": passed.by_row})


def read_passed(folder: Path) -> Passed:
    """Return what `keep` wrote.

    Raises:
        DataError: The file is missing or damaged.
    """
    document = read_json(folder / PASSED)
    return Passed(document["prompts"], document["by_row"])


def passed_prompts(run: RunDirectory) -> Passed:
    """Return, for each policy and decoding, which test prompts' rules were all kept.

    Raises:
        RunError: The reward of the run checks no rules, or the run is not evaluated.
    """
    stages = {stage.name: stage for stage in run.plan}
    prompts: list[str] = []
    by_row: dict[str, dict[str, str]] = {}
    for row in [name.split("/")[0] for name in stages if name.endswith("/test/reward-scores")]:
        stage = stages[f"{row}/test/reward-scores"]
        paths = [run.folder(task) / CHECKS_FILE for task in tasks([stage])]
        if not all(path.is_file() for path in paths):
            raise RunError(f"{run.path} has no checked rules of {row}.", hint=f"Run: gshf-release eval {run.path}")
        kept: dict[str, dict[str, bool]] = {}
        for check in RuleCheck.read(*paths):
            answers = kept.setdefault(check.decoding, {})
            answers[check.prompt_id] = answers.get(check.prompt_id, True) and check.kept
        for decoding, answers in kept.items():
            prompts = prompts or sorted(answers)
            by_row.setdefault(decoding, {})[row] = "".join(str(int(answers[prompt])) for prompt in prompts)
    return Passed(prompts, {decoding: rows for decoding, rows in by_row.items() if any(map(is_iteration, rows))})
