"""The model card: result cells, facts and the recipe, in templates of model_cards/. Measured and reported numbers stand apart.

`card_templates.py` renders and escapes, `metadata.py` writes what the Hub reads; `facts.py` and `licences.py` check what is
stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gshf_release import recipe as recipes
from gshf_release.data import assets
from gshf_release.data.results import Cell, select
from gshf_release.diagnostics.verdict import verdict
from gshf_release.errors import ReleaseError
from gshf_release.models.checkpoints import PREFIX
from gshf_release.prompts import contamination
from gshf_release.recipe import INSTRUCTIONS, Recipe, read_mapping
from gshf_release.release import assumptions, card_templates, metadata
from gshf_release.release.card_data import Card
from gshf_release.release.facts import HUB_ID, Facts
from gshf_release.report import tables
from gshf_release.report.benchmarks import benchmark_tables
from gshf_release.report.figures import reported_curve
from gshf_release.report.notices import notices
from gshf_release.run.stage import iteration_row

MODEL, QUANTIZED, COMPRESSED, REPORTED = "model.md.j2", "gguf.md.j2", "compressed.md.j2", "reported.md.j2"


def render_card(card: Card, template: str = MODEL, **extra: Any) -> str:
    """Return the card as Markdown with YAML metadata.

    Args:
        card: What it shows.
        template: A file in model_cards/.
        extra: Further values for the template.

    Raises:
        ReleaseError: The template cannot be rendered.
    """
    shown = of_the_run(card.cells)
    found = [tables.evaluation_table(card.cells, name) for name in ("eval", "test") if select(card.cells, table=name)]
    values = {
        **_common(card),
        "verdict": verdict(card.cells, row=iteration_row(card.iteration)) if select(card.cells, table="test") else "",
        "evaluations": found,
        "benchmarks": benchmark_tables(shown),
        "notices": [*card.notices, *notices(shown)],
        "substitutes": metadata.substitutes(shown),
        "validation": tables.validation_table(card.cells),
        "scorers": tables.scorer_table(card.cells),
        "reported": _reported(card),
        **extra,
    }
    if template in (QUANTIZED, COMPRESSED):
        head = metadata.quantized(card, library="gguf" if template == QUANTIZED else "transformers")
    else:
        head = metadata.model(card)
    return f"---\n{head}---\n\n{card_templates.render(template, values, card.templates)}"


def _reported(card: Card) -> tables.Table | None:
    """Return the table of reported numbers, if they are this model's."""
    if card.facts.reported is None or not belongs(card.facts, card.recipe, card.repository):
        return None
    return tables.reported_table(card.facts.reported)


def belongs(facts: Facts, recipe: Recipe, repository: str = "") -> bool:
    """Return whether the reported numbers that facts name are this model's business: it is their model, base or recipe.

    Args:
        facts: With `reported`, a name or a file.
        recipe: What the card's model was made with.
        repository: Where it is published.
    """
    if facts.reported is None:
        return False
    path = assets.find(facts.reported, "eval/reported", ".yaml")
    content = read_mapping(path)
    own = {facts.base_model, recipe.base.model, repository} - {None, ""}
    if str(content.get("name")) in own:
        return True
    return recipe.name == path.stem and content.get("base") in {None, facts.base_model, recipe.base.model}


def left_out(facts: Facts, recipe: Recipe, repository: str = "") -> str:
    """Return the line that says why a card shows no reported numbers although facts name some; else nothing."""
    if facts.reported is None or belongs(facts, recipe, repository):
        return ""
    return (
        f"The numbers reported in {Path(facts.reported).name} are left out of the card: they are of another model than this "
        "one, its base or its recipe."
    )


def of_the_run(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the base and the iterations: answers of other models that the run judged are not the card's."""
    rows = tables.iterations_of(cells)
    return [entry for entry in cells if entry.row in rows]


def write_card(card: Card, folder: Path, template: str = MODEL, **extra: Any) -> None:
    """Write the card as README.md of a release folder."""
    (folder / "README.md").write_text(render_card(card, template, **extra), encoding="utf-8")


def render_reported(name: str, figure: Path | None = None) -> str:
    """Return the card of a published model from its facts, its reported numbers and its recipe, all of one name.

    Args:
        name: In model_cards, eval/reported and training/recipes.
        figure: A PNG file to draw, in a folder beside the card; None leaves it out.

    Raises:
        ReleaseError: The facts do not say where the model is, or the last iteration is not reported.
        RecipeError: One of the three files is missing.
    """
    facts, path = Facts.load(name), assets.find(name, "training/recipes", ".yaml")
    document = read_mapping(assets.find(name, "eval/reported", ".yaml"))
    recipe = recipes.load(str(path))
    if facts.repository is None:
        raise ReleaseError(
            f"{name}: the facts do not name the repository of the model.", hint="Add `repository: OWNER/NAME`."
        )
    if not any(row["row"] == iteration_row(recipe.loop.iterations) for row in document["rows"]):
        raise ReleaseError(
            f"{name}: iteration {recipe.loop.iterations} of the recipe is not among the reported numbers."
        )
    card = Card(
        recipe=recipe,
        repository=facts.repository,
        iteration=recipe.loop.iterations,
        cells=(),
        facts=facts,
        figure="" if figure is None else f"{figure.parent.name}/{figure.name}",
        figure_text="" if figure is None else reported_curve(document, figure),
        assumptions=assumptions.holding(assumptions.read(path), recipe),
    )
    values = {
        **_common(card),
        "recipe_sha256": "",
        "name": name,
        "table": tables.reported_table(name),
        "document": document,
    }
    return f"---\n{metadata.reported(card, document)}---\n\n{card_templates.render(REPORTED, values)}"


def _common(card: Card) -> dict[str, Any]:
    """Return the values that every template of a model gets."""
    return {
        "card": card,
        "facts": card.facts,
        "recipe": card.recipe,
        "title": card.facts.title or card.repository.rpartition("/")[2],
        "recipe_sha256": card.recipe.sha256,
        "published": bool(HUB_ID.fullmatch(card.repository)),
        "reward": reward_name(card.recipe),
        "reference": public_name(card.recipe.loop.reference),
        "offline": public_name(card.recipe.pairs.offline) if card.recipe.pairs.offline else None,
        "assumptions": [replace(entry, value=_without_path(entry.value)) for entry in card.assumptions],
        "base_weights": base_weights(card.recipe),
        "ingredients": _ingredients(card),
        "uncompared": card.facts.uncompared(),
        "compared": tables.contamination_table(card.cells),
        "looked_at": contamination.benchmarks(card.cells, checked=True),
        "not_looked_at": contamination.benchmarks(card.cells, checked=False),
    }


def _ingredients(card: Card) -> list[tuple[str, str, str | None, str | None]]:
    """Return `(what, name, licence, link)` of what the model was made of."""
    known, recipe = card.facts.ingredients, card.recipe
    names = {
        "base": card.facts.base_model or base_weights(recipe),
        "prompts": public_name(recipe.prompts.source),
        "reward": reward_name(recipe) or "stand-in trained from contrasts of the base's answers",
    }
    rows = []
    for what, name in names.items():
        found = getattr(known, what)
        rows.append((what, found.name or name, found.license, found.link))
    return rows


def public_name(model: str | None) -> str:
    """Return a Hub id as it is, and of a path of this machine only its last part."""
    return str(model) if model is None or HUB_ID.fullmatch(model) else Path(model).name


def _without_path(value: Any) -> Any:
    """Return a value of the recipe as a card may show it: of a path of this machine only its last part."""
    is_path = isinstance(value, str) and value.startswith(("/", "~", "./", "../"))
    return Path(value).name if is_path else value


def reward_name(recipe: Recipe) -> str | None:
    """Return what the card calls the reward: its model, the members of an ensemble, checked rules, or None for a stand-in."""
    reward = recipe.reward
    if reward.checks is not None:
        how = "1 if all are kept, else 0" if reward.all_or_nothing else "the share that is kept"
        source = "" if reward.checks == INSTRUCTIONS else f" of {reward.checks.rpartition(':')[2]}"
        return f"rules{source} that the prompts state, checked by a program: {how}"
    if reward.models:
        return f"mean of {', '.join(public_name(member.model) for member in reward.models)}"
    return None if reward.model is None else public_name(reward.model)


def base_weights(recipe: Recipe) -> str:
    """Return where the weights came from; a GGUF file is a quantization, which was dequantised."""
    model = recipe.base.model
    if model.startswith(PREFIX):
        package, _, inner = model.removeprefix(PREFIX).partition("/")
        name = f"{inner.rpartition('/')[2]} of the Python package {package}"
    else:
        name = public_name(model)
    return f"{name}, dequantised" if model.endswith(".gguf") else name
