"""Licences: what may follow from what, refusals that name the way out, and the strictest of several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import ReleaseError
from gshf_release.release import licences
from gshf_release.release.licences import ASKS, LICENCES, NO_DERIVATIVES, check, derive

DERIVABLE = sorted(name for name in ASKS if NO_DERIVATIVES not in ASKS[name])


def test_the_table_names_its_source_and_date_and_knows_each_licence_once() -> None:
    assert licences.SOURCE.startswith("https://huggingface.co/docs/hub/")
    assert licences.DATE == "2026-08-22"
    names = [name for group in licences._GROUPS.values() for name in group.split()]
    names += [*licences._OWN_TERMS.split(), *licences._OWN_TERMS_NON_COMMERCIAL.split(), *licences.UNCOMPARABLE]
    assert len(names) == len(set(names)) == len(LICENCES) == 82
    assert {"apache-2.0", "mit", "cc-by-sa-4.0", "llama3.1", "gemma", "openrail++", "other", "unknown"} <= LICENCES


@pytest.mark.parametrize(
    ("licence", "ingredient"),
    [
        ("apache-2.0", "mit"),
        ("mit", "apache-2.0"),
        ("mit", "cc0-1.0"),
        ("cc-by-sa-4.0", "mit"),
        ("agpl-3.0", "gpl-3.0"),
        ("gpl-3.0", "lgpl-3.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0"),
        ("llama3", "llama3"),
        ("other", "cc-by-nc-4.0"),
    ],
)
def test_a_licence_that_asks_for_as_much_is_taken(licence: str, ingredient: str) -> None:
    assert check(licence, {"base": ingredient}) == (["base"] if licence == "other" else [])


@pytest.mark.parametrize(
    ("licence", "ingredient", "asked"),
    [
        ("cc0-1.0", "mit", "the notice of its authors"),
        ("apache-2.0", "cc-by-nc-4.0", "non-commercial use only"),
        ("apache-2.0", "cc-by-sa-4.0", "share-alike under CC BY-SA"),
        ("lgpl-3.0", "gpl-3.0", "share-alike under the GPL"),
        ("gpl-3.0", "agpl-3.0", "source for users over a network"),
        ("apache-2.0", "llama3", "the terms of llama3"),
        ("llama3", "gemma", "the terms of gemma"),
    ],
)
def test_a_laxer_licence_is_refused_and_what_it_lacks_is_named(licence: str, ingredient: str, asked: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        check(licence, {"reward": ingredient})
    assert f"license {licence!r} is laxer than that of the reward, {ingredient}: it does not ask for" in str(
        caught.value
    )
    assert asked in str(caught.value)
    assert f"Not laxer is: {ingredient}" in str(caught.value)


def test_ingredients_that_no_listed_licence_covers_lead_to_terms_of_their_own() -> None:
    with pytest.raises(ReleaseError, match="No licence of the Hub's list fits; write `license: other`"):
        check("cc-by-sa-4.0", {"base": "cc-by-sa-4.0", "prompts": "gemma"})


@pytest.mark.parametrize("licence", ["cc-by-nd-4.0", "other", "mit"])
def test_what_forbids_derived_works_cannot_be_an_ingredient(licence: str) -> None:
    with pytest.raises(ReleaseError, match=r"The licence of the prompts, cc-by-nd-4\.0, allows no derived works"):
        check(licence, {"prompts": "cc-by-nd-4.0"})


def test_what_nobody_states_is_named_and_not_guessed() -> None:
    assert check("mit", {"base": "mit", "prompts": None, "reward": "unknown"}) == ["prompts", "reward"]


@pytest.mark.parametrize(
    ("ingredients", "expected"),
    [
        ({"prompts": "apache-2.0", "base": "apache-2.0"}, "apache-2.0"),
        ({"prompts": "cc-by-4.0", "base": "apache-2.0"}, "cc-by-4.0"),
        ({"prompts": "cc0-1.0", "base": "cc0-1.0"}, "cc0-1.0"),
        ({"prompts": "cc-by-nc-4.0", "base": "apache-2.0"}, "cc-by-nc-4.0"),
        ({"prompts": "mit", "base": "llama3.1"}, "llama3.1"),
    ],
)
def test_the_licence_of_data_follows_from_the_ingredients(ingredients: dict[str, str | None], expected: str) -> None:
    assert derive(ingredients) == expected


@pytest.mark.parametrize(("found", "shown"), [(None, "not stated"), ("unknown", "unknown"), ("cc", "cc")])
def test_no_licence_is_derived_from_one_that_is_not_known(found: str | None, shown: str) -> None:
    with pytest.raises(ReleaseError, match=f"The licence of the evaluation prompts is {shown}, so") as caught:
        derive({"evaluation prompts": found, "base": "mit"})
    assert "ingredients.evaluation_prompts.license" in str(caught.value)


@given(st.lists(st.sampled_from(DERIVABLE), min_size=1, max_size=4))
def test_a_derived_licence_is_never_refused_and_none_laxer_would_do(names: list[str]) -> None:
    ingredients: dict[str, str | None] = {str(number): name for number, name in enumerate(names)}
    try:
        found = derive(ingredients)
    except ReleaseError:
        assert not licences.covering(names)
        return
    assert check(found, ingredients) == []
    needed = frozenset().union(*(ASKS[name] for name in names))
    assert all(len(ASKS[other]) >= len(ASKS[found]) for other in ASKS if needed <= ASKS[other])
