"""Recipe keys that the chosen algorithm does not read are named, so that nobody believes in them."""

from __future__ import annotations

from typing import Any

import pytest

from gshf_release import recipe as recipes
from gshf_release.errors import RecipeError
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.ignored_keys import DPO_ALONE, notice, without_effect
from gshf_release.report.tables import results_document

SET: dict[str, Any] = {
    "loop": {"reference": "owner/sft", "reference_revision": "v1"},
    "pairs": {"choice": "rejection-sampling", "etas": [2.0, 1.0], "minimum_margin": 0.5},
    "training": {"loss": "smoothed", "label_smoothing": 0.1, "beta": 0.2, "sft_weight": 0.5},
}


def recipe(algorithm: str, **sections: Any) -> Recipe:
    content = {
        "name": "x",
        "base": {"model": "owner/base"},
        "prompts": {"roles": {"reward": 8, "second_scorer": 8}},
        "loop": {"algorithm": algorithm, **sections.pop("loop", {})},
    }
    return parse(Recipe, content | sections, "here")


def test_dpo_keys_under_raft_are_named_in_one_line() -> None:
    found = recipe("raft", **SET)
    assert without_effect(found) == [key for key in DPO_ALONE if key != "training.uncertainty_weight"]
    assert notice(found).startswith("Not used by raft: loop.reference, ")
    assert notice(found) in results_document("x", [], notice(found))


def test_dpo_reads_every_key() -> None:
    assert without_effect(recipe("gshf", **SET)) == []
    assert notice(recipe("gshf", **SET)) == ""


def test_untouched_defaults_are_not_named() -> None:
    assert without_effect(recipe("raft")) == []
    assert without_effect(recipe("raft", training={"beta": 0.1, "epochs": 1}, pairs={"length_penalty": 0.1})) == []


@pytest.mark.parametrize("name", ["learn", "quickstart", "stand-in", "stand-in-long", "fsfairx-zephyr-7b"])
def test_the_algorithm_is_one_key_of_every_recipe(name: str) -> None:
    """A recipe that sets DPO keys is turned into RAFT by one key, and says which of its keys it leaves unread."""
    changed, before = recipes.load(name, ("loop.algorithm=raft",)), recipes.load(name)
    assert without_effect(before) == []
    assert set(without_effect(changed)) <= set(DPO_ALONE)
    assert ("training.beta" in without_effect(changed)) == (before.training.beta != 0.1)


def test_the_base_of_a_stand_in_scorer_has_a_revision_that_is_fingerprinted() -> None:
    plain, pinned = (
        recipe("gshf", reward={"contrasts": {"base": "owner/small", **given}}) for given in ({}, {"revision": "v1"})
    )
    assert pinned.value("reward.contrasts") == plain.value("reward.contrasts") | {"revision": "v1"}
    assert parse(Recipe, pinned.model_dump(mode="json"), "again") == pinned
    with pytest.raises(RecipeError, match=r"the run's base has base\.revision"):
        recipe("gshf", reward={"contrasts": {"revision": "v1"}})


def test_a_revision_needs_a_checkpoint() -> None:
    with pytest.raises(RecipeError, match="reference_revision belongs to a reference on the Hub"):
        recipe("gshf", loop={"reference_revision": "v1"})
