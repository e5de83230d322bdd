"""The recipe: *what* a run does. A frozen, fully checked model of the YAML file a user writes.

Every key is read by the code; an unknown key is an error that names the nearest valid one. Defaults come from section 3.3 of
arXiv 2405.07863 unless a comment says otherwise; `# assumption` marks what no source states.

The sections are one file each; the recipe, and what one section demands of another, stand here.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from gshf_release.data import assets
from gshf_release.data.hashing import sha256_json
from gshf_release.recipe.evaluation import Evaluation, Plan
from gshf_release.recipe.loop import Base, Keep, Loop, Sampling
from gshf_release.recipe.parsing import Count, Name, PositiveInt, Section, Share, apply_override, parse, read_mapping
from gshf_release.recipe.prompts import Augmentation, Filters, Prompts, Roles, Writer
from gshf_release.recipe.release import AllowedFinding, Release
from gshf_release.recipe.scorers import INSTRUCTIONS, PYTHON, Contrasts, Member, Reward, ScoreSource, SecondScorer
from gshf_release.recipe.training import Adapter, Pairs, Training

__all__ = [
    "Adapter", "AllowedFinding", "Augmentation", "Base", "Contrasts", "Evaluation", "Filters", "Keep", "Loop", "Member",
    "Pairs", "Plan", "Prompts", "Recipe", "Release", "Reward", "Roles", "Sampling", "ScoreSource", "SecondScorer", "Section",
    "Training", "Writer", "Count", "Name", "PositiveInt", "Share", "INSTRUCTIONS", "PYTHON",
    "apply_override", "load", "parse", "read_mapping",
]  # fmt: skip


class Recipe(Section):
    """One run, from its base model to its release."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    base: Base
    prompts: Prompts = Prompts()
    loop: Loop = Loop()
    sampling: Sampling = Sampling()
    reward: Reward = Reward()
    pairs: Pairs = Pairs()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    plan: Plan = Plan()
    release: Release = Release()

    @model_validator(mode="after")
    def _offline_pairs_are_trained_on(self) -> Self:
        if self.pairs.source == "offline" and self.loop.iterations != 1:
            raise ValueError("pairs.source 'offline' has the same pairs in every iteration: set loop.iterations to 1")
        if self.pairs.source != "online" and self.loop.algorithm != "gshf":
            raise ValueError("offline pairs need loop.algorithm 'gshf'")
        if self.pairs.source != "online" and self.loop.reference == "previous":
            raise ValueError("offline pairs need a fixed loop.reference")
        return self

    @model_validator(mode="after")
    def _reference_is_without_the_adapter(self) -> Self:
        if self.training.adapter is not None and self.loop.reference != "base":
            raise ValueError("training.adapter needs loop.reference 'base', which is the model with the adapter off")
        return self

    @model_validator(mode="after")
    def _uncertainty_comes_from_an_ensemble(self) -> Self:
        if self.training.uncertainty_weight and (not self.reward.models or self.pairs.source != "online"):
            raise ValueError("training.uncertainty_weight needs reward.models and the policy's own pairs alone")
        return self

    @model_validator(mode="after")
    def _stand_ins_have_prompts(self) -> Self:
        if self.evaluation.only:
            return self
        for scorer, count, key in (
            (self.reward, self.prompts.roles.reward, "reward"),
            (self.evaluation.second_scorer, self.prompts.roles.second_scorer, "second_scorer"),
        ):
            if scorer.trained and count < 8:
                raise ValueError(f"a trained stand-in needs prompts.roles.{key} of at least 8, not {count}")
        return self

    def value(self, key: str) -> Any:
        """Return the JSON value under a dotted key such as `sampling.n`.

        Raises:
            KeyError: There is no such key.
        """
        value: Any = self.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        return value

    @property
    def sha256(self) -> str:
        """The recipe's content hash: comments, order and formatting of the file do not change it."""
        return sha256_json(self.model_dump(mode="json"))


def load(reference: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Return the recipe in a file or of a name in training/recipes, with `key=value` overrides applied.

    Raises:
        RecipeError: No such recipe, unknown key (the nearest is named), or a value out of range.
    """
    path = assets.find(reference, "training/recipes", ".yaml")
    content = read_mapping(path)
    for override in overrides:
        apply_override(content, override)
    return parse(Recipe, content, str(path))
