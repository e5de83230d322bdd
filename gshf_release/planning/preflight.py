"""The list of checks before any work: `doctor`, `train --plan`, `prefetch` and `train` go through the same one.

It loads no weights. What is not here yet is said to be unchecked, and checked by the command that finds it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gshf_release.data.records import Prompt
from gshf_release.errors import CheckpointError, DataError, GshfError
from gshf_release.models import chat_template_checks, checkpoints
from gshf_release.models.chat_template import asks_for_date
from gshf_release.models.chat_tokenizer import stop_ids
from gshf_release.preference import offline
from gshf_release.prompts import split
from gshf_release.prompts.instruction_rules import find_rules
from gshf_release.recipe import Recipe, ScoreSource
from gshf_release.rewards.instruction_checks import load_rules, prompt_text
from gshf_release.rewards.settings import CONTRAST_BASE, KEYS, checkpoints_of, settings
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory

KEEPS_WORDS = "every word of a conversation reaches the model"
READ = "every row is read"
DATED = "it writes the date into each conversation: throughout a run that is the day on which the run began"
STATED = "every prompt states a rule that the reward checks"
RULES_LOOKED_FOR = 2000
"""Prompts of a file in which rules are looked for."""
NOT_CHECKED = "not checked: "


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, and whether it is as it should be."""

    what: str
    found: str
    ok: bool = True
    warning: bool = False
    """It does not stop a run, but is worth a look before hours are spent."""


def findings(recipe: Recipe, run: RunDirectory | None = None) -> list[Finding]:
    """Return what the checks of a recipe find; the first that is not ok is why a run does not begin.

    Args:
        recipe: The recipe.
        run: Its run, if there is one: it may hold what the recipe's files were copied from.
    """
    if importlib.util.find_spec("transformers") is None:
        return [Finding("templates", f"{NOT_CHECKED}transformers is not installed")]
    found = list(_look("base template", partial(_base, recipe, run)))
    for scorer, key in KEYS.items():
        for model, locate, pairwise in _scorers(settings(recipe, scorer), key, run):
            found += _look(f"{scorer} template", partial(_reward, locate, pairwise), model)
    for what, locate, read in [] if recipe.evaluation.only else _files(recipe, run):
        found += _look(what, partial(_rows, locate, read), fine=READ)
        if what in (split.SOURCE_KEY, split.EVALUATION_KEY):
            for checks in dict.fromkeys(settings(recipe, scorer).checks for scorer in KEYS):
                if checks is not None:
                    found += _look(f"rules of {what}", partial(_rules, checks, what, locate, read), fine=STATED)
    return found


def require_ready(recipe: Recipe, run: RunDirectory | None = None) -> list[Finding]:
    """Return the findings, or stop.

    Raises:
        CheckpointError: Something is not as it should be.
    """
    found = findings(recipe, run)
    for finding in found:
        if not finding.ok:
            raise CheckpointError(finding.found)
    return found


def _look(what: str, check: Callable[[], list[str]], model: str = "", fine: str = KEEPS_WORDS) -> Iterator[Finding]:
    """Yield what a check finds: a warning each for what it returns."""
    try:
        warnings = check()
    except _Missing as error:
        yield Finding(what, f"{NOT_CHECKED}{error.message}")
    except GshfError as error:
        yield Finding(what, str(error), ok=False)
    else:
        yield Finding(what, f"{fine}{f' ({model})' if model else ''}")
        for text in warnings:
            yield Finding(what, text, warning=True)


class _Missing(GshfError):
    """A model or a file that has not been brought."""


def _here(model: str, **known: str | None) -> Path:
    try:
        return checkpoints.locate(model, **known)
    except CheckpointError as error:
        raise _Missing(f"{model} is not here") from error


def _base(recipe: Recipe, run: RunDirectory | None) -> list[str]:
    wanted = recipe.base
    own = None if run is None else run.path / "base" / "model"
    adopted = own is not None and (own.parent / "manifest.json").is_file()
    path = own if own is not None and adopted else _here(wanted.model, revision=wanted.revision, sha256=wanted.sha256)
    tokenizer, place = checkpoints.load_tokenizer(path), chat_template_checks.template_place(path)
    chat_template_checks.check_policy(tokenizer, place, recipe.prompts, system=has_system_turns(recipe, run))
    open_end = chat_template_checks.check_turn_end(tokenizer, place, stop_ids(tokenizer, _Configured(path)))
    return [text for text in (open_end, DATED if asks_for_date(tokenizer) else "") if text]


def _reward(locate: Callable[[], Path], pairwise: bool) -> list[str]:
    path = locate()
    tokenizer = checkpoints.load_tokenizer(path)
    chat_template_checks.check_reward(tokenizer, chat_template_checks.template_place(path), pairwise=pairwise)
    return [DATED] if getattr(tokenizer, "chat_template", None) and asks_for_date(tokenizer) else []


def _scorers(chosen: ScoreSource, key: str, run: RunDirectory | None) -> Iterator[tuple[str, Callable[[], Path], bool]]:
    """Yield `(model, what finds it, whether it compares pairs)` of every checkpoint whose own template a scorer reads with."""
    for model, revision in checkpoints_of(chosen):
        yield model, partial(_here, model, revision=revision), chosen.kind == "pairwise"
    own = chosen.contrasts
    if chosen.trained and own.base != "base":
        kept = None if run is None else input_copies.kept_input(run, f"{key}.{CONTRAST_BASE}", own.base)
        found = partial(_here, own.base, revision=own.revision, sha256=own.sha256)
        yield own.base, (found if kept is None else partial(Path, kept)), False


def has_system_turns(recipe: Recipe, run: RunDirectory | None = None) -> bool:
    """Return whether the recipe, or a prompt file that is here, puts a system turn before a conversation."""
    rules = recipe.prompts
    if rules.system is not None or rules.empty_system:
        return True
    return not recipe.evaluation.only and any(
        prompt.messages[0]["role"] == "system" for prompt in _prompts(recipe, run)
    )


def _prompts(recipe: Recipe, run: RunDirectory | None) -> Iterator[Prompt]:
    """Yield the prompts that are here; a file that is missing or bad is a finding of its own."""
    for _, locate, read in _files(recipe, run):
        with contextlib.suppress(GshfError):
            yield from read(locate())


def _files(
    recipe: Recipe, run: RunDirectory | None
) -> Iterator[tuple[str, Callable[[], Path], Callable[[Path], Iterable[Prompt]]]]:
    """Yield `(recipe key, what finds the file, what reads its prompts)` of every file of prompts or pairs."""
    rule = recipe.prompts.on_bad_row
    read = partial(split.read_prompts, on_bad_row=rule)
    yield split.SOURCE_KEY, partial(split.source_path, recipe.prompts.source, "training/prompts"), read
    if recipe.evaluation.prompts is not None:
        yield split.EVALUATION_KEY, partial(split.evaluation_path, run, recipe.evaluation.prompts), read
    if recipe.pairs.offline is not None:
        locate = partial(offline.source_path, run, recipe.pairs.offline)
        yield "pairs.offline", locate, lambda path: [row.prompt for row in offline.read_preferences(path, rule).values]


def _rows(locate: Callable[[], Path], read: Callable[[Path], Iterable[Prompt]]) -> list[str]:
    """Read a file that is here.

    Raises:
        DataError: A row of it cannot be read.
    """
    try:
        path = locate()
    except GshfError as error:
        raise _Missing(error.message) from error
    for _ in read(path):
        pass
    return []


def _rules(checks: str, what: str, locate: Callable[[], Path], read: Callable[[Path], Iterable[Prompt]]) -> list[str]:
    """Look for rules in the first prompts of a file.

    Raises:
        DataError: No prompt states a rule that the reward knows.
    """
    rules = load_rules(checks)
    try:
        prompts = list(itertools.islice(read(locate()), RULES_LOOKED_FOR))
    except GshfError as error:
        raise _Missing("its prompts cannot be read") from error
    without = [prompt for prompt in prompts if not find_rules(prompt_text(prompt.messages), rules)]
    if not without:
        return []
    example = f"the first: {prompt_text(without[0].messages)[:60]!r}"
    if len(without) == len(prompts):
        raise DataError(
            f"No prompt of {what} states a rule that {checks!r} knows ({example}).",
            hint="Write such prompts: gshf-release prompts --instructions 2000 --out FILE",
        )
    told = f"{len(without)} of {len(prompts)} prompts of {what} state no rule that is checked ({example})"
    return [f"{told}; every sound answer to them scores 1"]


class _Configured:
    """The end tokens that a checkpoint's files name, as its generation config has them once the model is loaded."""

    def __init__(self, path: Path) -> None:
        self.eos_token_id: Any = None
        for name in ("config.json", "generation_config.json") if path.is_dir() else ():
            try:
                content = json.loads((path / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            self.eos_token_id = content.get("eos_token_id", self.eos_token_id)
