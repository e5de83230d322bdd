"""The two scorers of a run and where the recipe describes them."""

from __future__ import annotations

from typing import Literal

from gshf_release.recipe import Recipe, Reward, SecondScorer

Scorer = Literal["reward", "second-scorer"]
KEYS: dict[str, str] = {"reward": "reward", "second-scorer": "evaluation.second_scorer"}


def settings(recipe: Recipe, scorer: str) -> Reward | SecondScorer:
    """Return the recipe's section of a scorer: `reward` is trained on, `second-scorer` only judges."""
    return recipe.reward if scorer == "reward" else recipe.evaluation.second_scorer
