"""The model card, rendered in a sandbox from templates in model_cards/, result cells and a facts file.

Values are never templates: they are inserted as text, escaped where Markdown would read them. Metadata is written by a YAML
dumper. Measured and reported numbers stand in separate tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gshf_release import assets
from gshf_release.checkpoints import PREFIX
from gshf_release.diagnostics.verdict import verdict
from gshf_release.errors import ReleaseError
from gshf_release.recipe import Recipe, read_mapping
from gshf_release.release.rules import LICENCES
from gshf_release.report import tables
from gshf_release.results import Cell, select

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run cannot know about its model: licence, languages, where the base is published."""

    license: str | None
    base_model: str | None
    language: list[str]
    title: str | None
    description: str
    reported: str | None

    @classmethod
    def load(cls, reference: str | None) -> Facts:
        """Return the facts in a YAML file or of a name in model_cards.

        Raises:
            ReleaseError: A licence the Hub does not know, a base model that is no Hub id, or an unknown key.
        """
        content = {} if reference is None else read_mapping(assets.find(reference, "model_cards", ".yaml"))
        known = ("license", "base_model", "language", "title", "description", "reported")
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ReleaseError(f"{reference}: unknown key {unknown[0]!r}.", hint=f"Known: {', '.join(known)}.")
        facts = cls(
            license=content.get("license"),
            base_model=content.get("base_model"),
            language=_listed(content.get("language") or "en"),
            title=content.get("title"),
            description=str(content.get("description") or ""),
            reported=content.get("reported"),
        )
        if facts.license is not None and str(facts.license) not in LICENCES:
            raise ReleaseError(f"{reference}: {facts.license!r} is no licence identifier of the Hub.")
        if facts.base_model is not None and not HUB_ID.fullmatch(str(facts.base_model)):
            raise ReleaseError(f"{reference}: base_model {facts.base_model!r} is not of the form OWNER/NAME.")
        return facts


@dataclass(frozen=True, slots=True)
class Card:
    """All that one card shows."""

    recipe: Recipe
    repository: str
    iteration: int
    cells: Sequence[Cell]
    facts: Facts
    figure: str = ""
    """Path of the figure inside the release, if there is one."""
    figure_text: str = ""
    weights_sha256: str = ""
    """Of the FP32 policy."""
    base_sha256: str = ""
    """Of the file or folder the base came from."""


def render(card: Card, template: str = "model.md.j2", **extra: Any) -> str:
    """Return the card as Markdown with YAML metadata.

    Args:
        card: What it shows.
        template: A file in model_cards/.
        extra: Further values for the template.
    """
    found = [tables.evaluation_table(card.cells, name) for name in ("eval", "test") if select(card.cells, table=name)]
    values = {
        "card": card,
        "facts": card.facts,
        "recipe": card.recipe,
        "title": card.facts.title or card.repository.rpartition("/")[2],
        "reward": _reward_name(card.recipe),
        "base_weights": _base_weights(card.recipe),
        "verdict": verdict(card.cells, row=f"iteration-{card.iteration}") if select(card.cells, table="test") else "",
        "evaluations": found,
        "validation": tables.validation_table(card.cells),
        "scorers": tables.scorer_table(card.cells),
        "reported": tables.reported_table(card.facts.reported) if card.facts.reported else None,
        **extra,
    }
    body = environment().get_template(template).render(values)
    relation = "quantized" if template == "gguf.md.j2" else "finetune"
    return f"---\n{_metadata(card, relation)}---\n\n{body}"


def environment() -> Any:
    """Return the sandbox that templates in model_cards/ are rendered in, with the filters `text` and `table`."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader([root / "model_cards" for root in assets.roots()]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["text"] = escape_text
    made.filters["table"] = tables.markdown
    return made


def escape_text(value: Any) -> str:
    """Return a value as plain text inside one Markdown paragraph: it opens no block, link, tag or code."""
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(str(value).split()))
    text = re.sub(r"^([-+=]|\d+(?=[.)]))", r"\\\1" if not text[:1].isdigit() else r"\1\\", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _listed(value: Any) -> list[str]:
    """Return a list of texts from a YAML list or from a single value."""
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def _public_name(model: str | None) -> str | None:
    """Return a Hub id as it is, and of a path of this machine only its last part."""
    return model if model is None or HUB_ID.fullmatch(model) else Path(model).name


def _reward_name(recipe: Recipe) -> str | None:
    """Return what the card calls the reward: its model, the members of an ensemble, or None for a stand-in."""
    reward = recipe.reward
    if reward.models:
        return f"mean of {', '.join(str(_public_name(member.model)) for member in reward.models)}"
    return _public_name(reward.model)


def _base_weights(recipe: Recipe) -> str:
    """Return where the weights came from; a GGUF file is a quantization, which was dequantised."""
    model = recipe.base.model
    if model.startswith(PREFIX):
        package, _, inner = model.removeprefix(PREFIX).partition("/")
        name = f"{inner.rpartition('/')[2]} of the Python package {package}"
    else:
        name = str(_public_name(model))
    return f"{name}, dequantised" if model.endswith(".gguf") else name


def _metadata(card: Card, relation: str) -> str:
    facts = card.facts
    base = facts.base_model if relation == "finetune" else _quantized_base(card)
    document: dict[str, Any] = {
        "license": facts.license,
        "language": facts.language,
        "library_name": "transformers" if relation == "finetune" else "gguf",
        "pipeline_tag": "text-generation",
        "base_model": [base] if base else None,
        "base_model_relation": relation if base else None,
        "tags": ["gshf", "dpo", "iterative-dpo", "rlhf", "alignment"],
    }
    document = {key: value for key, value in document.items() if value is not None}
    if relation == "finetune":
        index = _model_index(card)
        if index:
            document["model-index"] = index
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _quantized_base(card: Card) -> str | None:
    return card.repository if HUB_ID.fullmatch(card.repository) else None


def _model_index(card: Card) -> list[dict[str, Any]]:
    """Return the model-index of this iteration alone, one data set for each evaluation set."""
    row = f"iteration-{card.iteration}"
    results = []
    for name in ("eval", "test"):
        metrics = [
            _metric(entry, card.iteration)
            for entry in select(card.cells, table=name, row=row)
            if entry.metric in ("win rate", "gain over base") and entry.value is not None
        ]
        if metrics:
            title = f"{tables.TITLES[name]} of the run (stand-in annotator)"
            results.append(
                {
                    "task": {"type": "text-generation", "name": "Chat"},
                    "dataset": {"name": title, "type": f"gshf-release-{name}-prompts"},
                    "metrics": metrics,
                }
            )
    return [{"name": card.repository.rpartition("/")[2], "results": results}] if results else []


def _metric(entry: Cell, iteration: int) -> dict[str, Any]:
    return {
        "type": entry.metric.replace(" ", "_"),
        "name": f"{entry.metric}, {entry.decoding}, {entry.judge}",
        "value": round(float(entry.value or 0.0), 4),
        "args": {
            "judge": entry.judge,
            "baseline": entry.baseline,
            "decoding": entry.decoding,
            "iteration": iteration,
            "n": entry.n,
            "standard_error": None if entry.standard_error is None else round(entry.standard_error, 4),
        },
    }


def write(card: Card, folder: Path, template: str = "model.md.j2", **extra: Any) -> None:
    """Write the card as README.md of a release folder."""
    (folder / "README.md").write_text(render(card, template, **extra), encoding="utf-8")
