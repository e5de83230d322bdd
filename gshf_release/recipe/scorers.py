"""Define the recipe sections of scorers: the training reward, and the second scorer that training never sees."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gshf_release.recipe.parsing import Count, PositiveInt, Section, Share

PYTHON = "python:"
"""Begins the name of a scorer that is a Python function."""


INSTRUCTIONS = "instructions"
"""Names the rules that the package knows."""


class Contrasts(Section):
    """A stand-in scorer, trained by Bradley-Terry on contrasts made from the base model's own answers.

    It stands in for human preference where no reward model is at hand; it is not one.
    """

    base: str = "base"
    """`base` (the run's base model), or a package, folder or Hub id as in `base.model`."""
    revision: str | None = None
    """Branch, tag or commit for a Hub id."""
    sha256: str | None = None
    layers: PositiveInt | None = None
    """Keep only the first layers of the body; None keeps all."""
    kinds: Annotated[
        tuple[Literal["other_prompt", "missing_words", "shuffled", "cut", "repeated"], ...], Field(min_length=1)
    ] = (
        "other_prompt",
        "missing_words",
        "shuffled",
        "cut",
        "repeated",
    )
    samples_per_prompt: Count = 2
    temperature: Annotated[float, Field(gt=0)] = 0.7
    held_out: Share = 0.25
    """Share of the role's prompts kept out of training, on which accuracy per kind is measured."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    epochs: PositiveInt = 1
    batch_pairs: PositiveInt = 16
    precision: Literal["bf16", "fp32"] = "bf16"
    max_tokens: PositiveInt = 256
    """Pairs with a longer side are dropped and counted."""

    @model_validator(mode="after")
    def _revision_is_of_another_base(self) -> Self:
        if self.revision is not None and self.base == "base":
            raise ValueError("revision belongs to a base of its own; the run's base has base.revision")
        return self


class Member(Section):
    """One model of an ensemble."""

    model: str
    """A sequence-classification checkpoint (folder or Hub id), or `python:package.module:function`."""
    revision: str | None = None


class ScoreSource(Section):
    """Says where a score comes from: a model, an ensemble, rules that a program checks, or a stand-in that the run trains."""

    model: str | None = None
    """A checkpoint (folder or Hub id), or `python:package.module:function`; None, without `models` or `checks`,
    trains `contrasts`."""
    revision: str | None = None
    kind: Literal["sequence-classification", "pairwise"] = "sequence-classification"
    """What the checkpoint `model` is: a classifier with one logit, or a language model that answers A or B to two responses.
    A pairwise model ranks the responses to a prompt by a round-robin tournament, and measures a policy by how probably its
    answer is preferred to the base's greedy one."""
    models: tuple[Member, ...] = ()
    """An ensemble instead of `model`: the score is the members' mean, and their standard deviation is kept beside it."""
    checks: str | None = None
    """Rules that a program checks instead of a model: `instructions` (the kinds of prompts/instruction_rules.py), or
    `python:package.module:NAME`, a list of `Rule`. A response scores the share of the rules stated in its prompt that it keeps,
    and 0 if it was cut off, is degenerate, or breaks a required rule."""
    all_or_nothing: bool = False
    """For `checks`: a response scores 1 if it keeps every rule, else 0."""
    contrasts: Contrasts = Contrasts()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = {"model": self.model, "models": self.models or None, "checks": self.checks}
        if len(given := [f"`{name}`" for name, value in named.items() if value is not None]) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.checks is not None and self.checks != INSTRUCTIONS and not self.checks.startswith(PYTHON):
            raise ValueError(f"checks is {INSTRUCTIONS!r} or {PYTHON}package.module:NAME, a list of rules")
        if self.all_or_nothing and self.checks is None:
            raise ValueError("`all_or_nothing` belongs to `checks`")
        if self.revision is not None and self.model is None:
            raise ValueError("`revision` belongs to `model`; a member of `models` has its own")
        if self.models and len({(member.model, member.revision) for member in self.models}) < 2:
            raise ValueError("`models` needs two different members at least; one model goes under `model`")
        if self.kind == "pairwise" and (self.model is None or self.model.startswith(PYTHON)):
            raise ValueError("kind 'pairwise' needs a checkpoint under `model`")
        return self

    @property
    def trained(self) -> bool:
        """Return whether the run trains this scorer itself, from contrasts."""
        return self.model is None and not self.models and self.checks is None


class Reward(ScoreSource):
    """The training reward: one scalar per conversation."""


class SecondScorer(ScoreSource):
    """A scorer that training never sees: other features, other prompts. It judges what the loop has learned."""
