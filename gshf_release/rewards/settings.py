"""The two scorers of a run and where the recipe describes them."""

from __future__ import annotations

from typing import Literal

from gshf_release.recipe import PYTHON, Recipe, ScoreSource

Scorer = Literal["reward", "second-scorer"]
SCORERS: tuple[Scorer, ...] = ("reward", "second-scorer")
KEYS: dict[str, str] = {"reward": "reward", "second-scorer": "evaluation.second_scorer"}

CONTRAST_BASE = "contrasts.base"
"""Below a scorer's key: the checkpoint that a stand-in is trained from."""


def settings(recipe: Recipe, scorer: str) -> ScoreSource:
    """Return the recipe's section of a scorer: `reward` is trained on, `second-scorer` only judges."""
    return recipe.reward if scorer == "reward" else recipe.evaluation.second_scorer


def kind_of_source(chosen: ScoreSource) -> str:
    """Return the kind of a scorer that is no ensemble."""
    return "checks" if chosen.checks is not None else kind_of(chosen.model, chosen.kind)


def kind_of(model: str | None, kind: str = "sequence-classification") -> str:
    """Return the kind of a model by its name: a Python function says so itself; the rest is what the recipe calls it."""
    return "python" if model is not None and model.startswith(PYTHON) else kind


def checkpoints_of(chosen: ScoreSource) -> list[tuple[str, str | None]]:
    """Return `(model, revision)` of every checkpoint that a scorer's description names."""
    named = [(chosen.model, chosen.revision), *((member.model, member.revision) for member in chosen.models)]
    return [(model, revision) for model, revision in named if model is not None and kind_of(model) != "python"]


def calls_user_code(chosen: ScoreSource) -> bool:
    """Return whether a scorer, or a member of it, is a Python function of the user's."""
    return bool(user_code(chosen))


def user_code(*scorers: ScoreSource) -> list[str]:
    """Return the Python functions that descriptions of scorers name."""
    named = [
        model
        for chosen in scorers
        for model in (chosen.model, chosen.checks, *(member.model for member in chosen.models))
    ]
    return [model for model in named if model is not None and kind_of(model) == "python"]


def user_code_of(recipe: Recipe) -> list[str]:
    """Return the Python functions that a recipe names."""
    return user_code(*(settings(recipe, scorer) for scorer in KEYS))


def opponents_of(recipe: Recipe, scorer: str, answers: str) -> str | None:
    """Return the stage of the answers that a pairwise scorer compares others with; None for scorers of single answers.

    Args:
        recipe: The recipe.
        scorer: `reward` or `second-scorer`.
        answers: The stage of the base's answers to the same prompts.
    """
    return answers if settings(recipe, scorer).kind == "pairwise" else None
