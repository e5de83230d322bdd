"""Facts: what a run cannot know about its model, from a YAML file in model_cards/ or of the user's. Closed and checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gshf_release.data import assets
from gshf_release.errors import RecipeError, ReleaseError
from gshf_release.recipe import Section, parse, read_mapping
from gshf_release.release import licences
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory

KEY, REPORTED_KEY = "release.facts", "release.facts.reported"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|code|multilingual")
ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[\w.~%/+@:,;=&?#-]*)?", re.ASCII)
TAG = re.compile(r"[\w.+:-]+( [\w.+:-]+)*", re.ASCII)


def _one_of_the_hubs(value: Any) -> Any:
    if value is not None and (not isinstance(value, str) or value not in licences.LICENCES):
        raise ValueError(f"{value!r} is no licence identifier of the Hub (its list of {licences.DATE})")
    return value


def _hub_id(value: Any) -> Any:
    if value is not None and (not isinstance(value, str) or not HUB_ID.fullmatch(value)):
        raise ValueError(f"{value!r} is not of the form OWNER/NAME")
    return value


def _fits(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is no {what}")
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Licence = Annotated[str | None, BeforeValidator(_one_of_the_hubs)]
HubId = Annotated[str, BeforeValidator(_hub_id)]
Address = Annotated[str, _fits(ADDRESS, "address on the web")]


def facts_path(run: RunDirectory | None, reference: str) -> Path:
    """Return the file of `release.facts`, or the run's copy of it where it is gone.

    Raises:
        RecipeError: There is neither.
    """
    return input_copies.find_input(run, KEY, reference, lambda: assets.find(reference, "model_cards", ".yaml"))


def reported_path(run: RunDirectory | None, reference: str) -> Path:
    """Return the file of the reported numbers that facts name, or the run's copy of it where it is gone.

    Raises:
        RecipeError: There is neither.
    """
    return input_copies.find_input(
        run, REPORTED_KEY, reference, lambda: assets.find(reference, "eval/reported", ".yaml")
    )


class Ingredient(Section):
    """Something a release was made of."""

    name: str | None = None
    """What to call it where the recipe's name would not do."""
    license: Licence = None
    """None says that nobody states one."""
    link: Address | None = None


class Ingredients(Section):
    """Says what a release was made of, as far as its licence is concerned."""

    base: Ingredient = Ingredient()
    prompts: Ingredient = Ingredient()
    reward: Ingredient = Ingredient()
    """The reward model: its weights are not passed on, but its judgment is."""
    evaluation_prompts: Ingredient = Ingredient()
    """Texts of `evaluation.prompts`; they enter the data set of judgments alone."""

    def licences(self, *names: str) -> dict[str, str | None]:
        """Return `{name: licence}` of some ingredients, named in words."""
        return {name.replace("_", " "): getattr(self, name).license for name in names}


class Decontamination(Section):
    """Says what the training prompts were compared with, by whoever made them."""

    checked: tuple[str, ...] = ()
    """Benchmarks whose prompts, and near-copies of them, were removed."""
    method: str = ""
    removed: Annotated[int, Field(ge=0)] | None = None
    unchecked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Benchmarks of which nobody states whether they were checked; for models that were made elsewhere."""

    @model_validator(mode="after")
    def _a_check_has_a_method(self) -> Self:
        if bool(self.checked) != bool(self.method.strip()):
            raise ValueError("`checked` and `method` need each other")
        return self


class Facts(Section):
    """Says what a run cannot know about its model: licences, languages, where the base is published, who made it."""

    license: Licence = None
    license_name: str | None = None
    """For `license: other`."""
    license_link: Address | None = None
    base_model: Annotated[str | None, BeforeValidator(_hub_id)] = None
    datasets: tuple[HubId, ...] = ()
    """Data sets on the Hub that it was trained on."""
    language: Annotated[
        tuple[Annotated[str, _fits(LANGUAGE, "language code (ISO 639, such as en)")], ...], BeforeValidator(_listed)
    ] = ("en",)
    tags: tuple[Annotated[str, _fits(TAG, "tag")], ...] = ()
    title: str | None = None
    description: str = ""
    authors: tuple[str, ...] = ()
    year: Annotated[int, Field(ge=1900, le=2999)] | None = None
    repository: Annotated[str | None, BeforeValidator(_hub_id)] = None
    """Where a model is published that no run here made; for cards from reported facts alone."""
    code: Address | None = None
    ingredients: Ingredients = Ingredients()
    decontamination: Decontamination = Decontamination()
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    """Beside those that every card states."""
    statements: tuple[str, ...] = ()
    """What is reported of it in words rather than in the rows of `reported`."""
    references: dict[str, str] = Field(default_factory=dict)
    """What the marks in the recipe's comments stand for, such as `[card]`."""
    reported: str | None = None
    """A name in eval/reported: published numbers to show apart from those measured."""

    @model_validator(mode="after")
    def _other_has_a_name(self) -> Self:
        named = (self.license_name is not None, self.license_link is not None)
        if named != ((self.license == "other"),) * 2:
            raise ValueError("license 'other' and both license_name and license_link need each other")
        return self

    @classmethod
    def load(cls, reference: str | None, run: RunDirectory | None = None) -> Facts:
        """Return the facts in a YAML file or of a name in model_cards, the licence compared with the ingredients'.

        Args:
            reference: The file or name; None states nothing.
            run: A run whose copy serves where the file is gone.

        Raises:
            ReleaseError: An unknown key (the nearest is named), a licence the Hub does not know or one laxer than an
                ingredient's, a base model that is no Hub id.
        """
        if reference is None:
            return cls()
        try:
            facts = parse(cls, read_mapping(facts_path(run, reference)), reference)
        except RecipeError as error:
            raise ReleaseError(error.message, hint=error.hint) from error
        try:
            facts.uncompared()
        except ReleaseError as error:
            raise ReleaseError(f"{reference}: {error.message}", hint=error.hint) from error
        return facts

    @classmethod
    def of_run(cls, reference: str | None, run: RunDirectory) -> Facts:
        """Return the facts that the cards of a run show, with the path of the reported numbers for their name.

        Raises:
            ReleaseError: As `load` does.
            RecipeError: The reported numbers are missing.
        """
        facts = cls.load(reference, run)
        if facts.reported is None:
            return facts
        return facts.model_copy(update={"reported": str(reported_path(run, facts.reported))})

    def uncompared(self) -> list[str]:
        """Return the ingredients whose licence could not be compared with that of the release.

        Raises:
            ReleaseError: The licence is laxer than an ingredient's.
        """
        found = self.ingredients.licences("base", "prompts", "reward")
        return list(found) if self.license is None else licences.check(self.license, found)
