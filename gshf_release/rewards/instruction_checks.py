"""A reward that checks the rules which a prompt states: verifiable, without a model and without a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.prompts import instruction_rules
from gshf_release.prompts.instruction_rules import Check, Rule, check_rules, share_kept
from gshf_release.recipe import INSTRUCTIONS, PYTHON, ScoreSource
from gshf_release.rewards import Inference, python_callable
from gshf_release.run import trust
from gshf_release.run.directory import read_json

FILE = "checks.json"


class InstructionChecks:
    """Scores a response by the share of the rules in its prompt that it keeps."""

    def __init__(self, rules: Sequence[Rule], *, all_or_nothing: bool = False) -> None:
        self.rules = tuple(rules)
        self.all_or_nothing = all_or_nothing

    @classmethod
    def open(cls, folder: Path, how: Inference) -> Self:
        """Load the checks that a run has adopted.

        Raises:
            EngineError: They are the user's own, and may not be imported or are no longer what the run adopted.
        """
        adopted = read_json(folder / FILE)
        source = str(adopted["checks"])
        if source.startswith(PYTHON):
            trust.require(source)
            python_callable.require_unchanged(source, adopted.get("source_sha256"), folder)
        return cls(load_rules(source), all_or_nothing=bool(adopted["all_or_nothing"]))

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the rewards, float32 (n,), from 0 to 1, as if every response had ended by itself."""
        return self.rewards([self.check(turns[:-1], turns[-1]["content"]) for turns in conversations])

    def check(self, prompt: Sequence[Message], response: str, *, ended: bool = True) -> list[Check]:
        """Return which rules of the last user turn a response keeps; one that was cut off (not `ended`) keeps none."""
        return check_rules(prompt_text(prompt), response, self.rules, ended=ended)

    def rewards(self, checks: Sequence[Sequence[Check]]) -> npt.NDArray[np.float32]:
        """Return the rewards of checked responses, float32 (n,)."""
        return np.asarray([share_kept(found, all_or_nothing=self.all_or_nothing) for found in checks], dtype=np.float32)


def adopt_checks(chosen: ScoreSource, folder: Path) -> None:
    """Record in a run which rules it checks; who names rules of one's own trusts them.

    Raises:
        EngineError: Rules of the user's own cannot be imported.
    """
    source = str(chosen.checks)
    document = {
        "checks": source,
        "all_or_nothing": chosen.all_or_nothing,
        "rules_version": instruction_rules.RULES_VERSION,
    }
    if source.startswith(PYTHON):
        trust.allow([source])
        document["source_sha256"] = python_callable.module_sha256(source)
    load_rules(source)
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_rules(source: str) -> tuple[Rule, ...]:
    """Return the rules that `reward.checks` names.

    Raises:
        EngineError: There is no such list of rules.
    """
    if source == INSTRUCTIONS:
        return instruction_rules.INSTRUCTIONS
    if not source.startswith(PYTHON):
        raise EngineError(f"There are no rules {source!r}.", hint=f"{INSTRUCTIONS}, or {PYTHON}module:NAME.")
    try:
        return instruction_rules.named(python_callable.load_named(source), source)
    except ValueError as error:
        raise EngineError(f"{error}.", hint="Name a list of gshf_release.prompts.instruction_rules.Rule.") from error


def rules_to_write(name: str) -> tuple[Rule, ...]:
    """Return the rules that prompts are written with: `training`, `held-out`, or the user's own list.

    Raises:
        EngineError: There is no such list of rules.
    """
    known = {"training": instruction_rules.TRAINING_RULES, "held-out": instruction_rules.HELD_OUT_RULES}
    if name in known:
        return known[name]
    return load_rules(name)


def prompt_text(messages: Sequence[Message]) -> str:
    """Return the last user turn, which states the rules."""
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
