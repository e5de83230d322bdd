"""Facts files: closed, with the nearest key in the error, and nothing in them that a card could not carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.data import assets
from gshf_release.errors import ReleaseError
from gshf_release.release.facts import Facts


def load(tmp_path: Path, content: str) -> Facts:
    path = tmp_path / "facts.yaml"
    path.write_text(content, encoding="utf-8")
    return Facts.load(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("licence: mit", "unknown key 'licence'; did you mean 'license'?"),
        ("ingredients: {basis: {license: mit}}", "unknown key 'ingredients.basis'; did you mean 'ingredients.base'?"),
        ("ingredients: {base: {licence: mit}}", "did you mean 'ingredients.base.license'?"),
        ("ingredients: {base: {license: gratis}}", "'gratis' is no licence identifier of the Hub"),
        ("license: other", "license 'other' and both license_name and license_link need each other"),
        ("license: mit\nlicense_name: x", "need each other"),
        ("language: english", "'english' is no language code"),
        ('tags: ["a\\nlicense: mit"]', "is no tag"),
        ("datasets: [somewhere]", "'somewhere' is not of the form OWNER/NAME"),
        ("code: javascript:alert(1)", "is no address on the web"),
        ("code: 'https://example.org/x) <b>'", "is no address on the web"),
        ("decontamination: {checked: [MT-Bench]}", "`checked` and `method` need each other"),
        ("- mit", "must hold keys and values"),
    ],
)
def test_a_fact_that_cannot_be_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        load(tmp_path, content)
    assert "facts.yaml" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_licence_laxer_than_an_ingredients_is_refused_with_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError, match=r"facts\.yaml: license 'mit' is laxer than that of the prompts, cc-by-nc-4\.0"
    ):
        load(tmp_path, "license: mit\ningredients: {prompts: {license: cc-by-nc-4.0}}")


def test_an_ingredient_without_a_licence_is_listed_as_not_compared(tmp_path: Path) -> None:
    facts = load(tmp_path, "license: mit\ningredients: {base: {license: mit}, reward: {license: unknown}}")
    assert facts.uncompared() == ["prompts", "reward"]


@pytest.mark.parametrize("name", assets.names("model_cards", ".yaml"))
def test_the_shipped_facts_are_valid(name: str) -> None:
    assert Facts.load(name).license is not None
