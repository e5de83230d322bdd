"""Define the recipe sections of what is measured, and of what a plan reckons with beforehand."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gshf_release.recipe.parsing import PositiveInt, Section
from gshf_release.recipe.scorers import SecondScorer


class Evaluation(Section):
    """Says what is measured after every iteration and at the end."""

    prompts: str | None = "quickstart"
    """A JSONL file of evaluation prompts, or a name in eval/prompts; None evaluates on the test role alone."""
    max_new_tokens: PositiveInt = 2048
    control_temperature: Annotated[float, Field(gt=0, lt=0.7)] = 0.3
    """The base is also decoded at this temperature: a gain that it reaches too is mere sharpening."""
    best_of: tuple[Annotated[int, Field(ge=2, le=10_000)], ...] = ()
    """Compare with the best of n of the base's own answers to the test prompts, chosen by the training reward; every policy
    then also answers at temperature 1."""
    temperatures: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Measure gain and KL of the untrained base at these temperatures too, the curve of mere sharpening; every policy then also
    answers at temperature 1."""
    second_scorer: SecondScorer = SecondScorer()
    benchmarks: tuple[str, ...] = ()
    """Names in eval/benchmarks, or files: what `gshf-release eval` asks of every policy beside the above."""
    only: bool = False
    """No training and no scorers: the run only evaluates `base` on benchmarks, as `gshf-release eval MODEL` does."""


class Plan(Section):
    """Facts for `train --plan` that cannot be read from files here. No stage reads them."""

    parameters: Annotated[float, Field(gt=0)] | None = None
    """Of the base, where it is not here to be counted. The next four likewise."""
    layers: PositiveInt | None = None
    width: PositiveInt | None = None
    """Of the residual stream (hidden size)."""
    key_values: PositiveInt | None = None
    """Numbers that the key-value cache keeps per token and layer, keys or values alone."""
    vocabulary: PositiveInt | None = None
    reward_parameters: Annotated[float, Field(gt=0)] | None = None
    """Of the reward model."""
    response_tokens: PositiveInt | None = None
    """Mean length to expect of a response; None expects every one to reach the limit."""
    prompt_tokens: PositiveInt | None = None
    """Mean length of a prompt in tokens; None reckons with 4.3 characters a token."""
