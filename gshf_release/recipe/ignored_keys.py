"""Recipe keys that have no effect under the chosen algorithm, and values that train poorly: said once, not refused.

`loop.algorithm` is one key to change in any recipe, also in one that sets what the other algorithm reads. So such keys are
named when a run begins, in its journal, plan and results, and do nothing. Only a value other than the default is named: the
default promises nothing, and a run's own recipe.yaml spells out every default.
"""

from __future__ import annotations

from typing import Any

from gshf_release.recipe import Loop, Pairs, Recipe, Section, Training

DEFAULTS: dict[str, Section] = {"loop": Loop(), "pairs": Pairs(), "training": Training()}
"""What a key has that nobody touched."""
DPO_ALONE = (
    "loop.reference",
    "loop.reference_revision",
    "pairs.choice",
    "pairs.etas",
    "pairs.minimum_margin",
    "training.loss",
    "training.label_smoothing",
    "training.uncertainty_weight",
    "training.beta",
    "training.sft_weight",
)
"""Keys about pairs and their loss; RAFT has neither."""


def without_effect(recipe: Recipe) -> list[str]:
    """Return the keys that the recipe sets to something else than the default, and that its algorithm does not read."""
    if recipe.loop.algorithm != "raft" or recipe.evaluation.only:
        return []
    return [key for key in DPO_ALONE if recipe.value(key) != _default(key)]


def _default(key: str) -> Any:
    section, name = key.split(".")
    return DEFAULTS[section].model_dump(mode="json")[name]


def notice(recipe: Recipe) -> str:
    """Return the line that names those keys; nothing if there are none."""
    keys = without_effect(recipe)
    return f"Not used by {recipe.loop.algorithm}: {', '.join(keys)}." if keys else ""


FULL_RATE, ADAPTER_RATE = "5e-7", "5.0e-6"
"""Peak rates of the zephyr-7b-beta recipes of alignment-handbook: all weights, and a low-rank adapter (QLoRA)."""
LOW_RATE = 2e-6
"""Below this a rate of DPO is one for all weights."""


def warnings(recipe: Recipe) -> list[str]:
    """Return what the recipe asks for that will train poorly, a sentence each with the way out."""
    training = recipe.training
    if training.adapter is None or training.learning_rate >= LOW_RATE or recipe.evaluation.only:
        return []
    return [
        f"training.learning_rate {training.learning_rate:g} is one for all weights, and training.adapter is set: published"
        f" recipes of this kind use {FULL_RATE} for all weights and {ADAPTER_RATE} for an adapter (alignment-handbook,"
        f" zephyr-7b-beta). Set training.learning_rate={ADAPTER_RATE}."
    ]
