"""AI prompts as files: JSONL for `prompts.source` of a recipe, Parquet, and a Hub data set folder with its card.

`make` runs the whole of `gshf-release prompts`: the stage that writes (`prompts/augmentation.py`) and the one that puts out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data import assets
from gshf_release.data.hashing import sha256_file
from gshf_release.data.records import Row
from gshf_release.data.results import read_cells
from gshf_release.errors import ReleaseError, RunError
from gshf_release.models.checkpoints import PREFIX
from gshf_release.prompts import augmentation, usage
from gshf_release.prompts.decontamination import available
from gshf_release.prompts.pool import Accepted
from gshf_release.prompts.writers import SERVED, writer_model
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.release import card_templates, metadata
from gshf_release.release.facts import HUB_ID
from gshf_release.release.licences import LICENCES
from gshf_release.report.tables import prompt_table
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Observer, execute
from gshf_release.run.stage import RESULTS, Input, Parameters, Stage

STAGE = "prompts/set"
JSON_LINES, FOLDER = "prompts.jsonl", "dataset"
TEMPLATE = "prompts.md.j2"
DATA = "data/train-00000-of-00001.parquet"


class PromptSetParameters(Parameters):
    """Say which template of the card is filled, by content hash."""

    template_sha256: str


@dataclass(frozen=True, slots=True)
class SetRow(Row):
    """One row of the data set."""

    prompt_id: str
    prompt: str


def make_prompt_set(
    run: RunDirectory, recipe: Recipe, profile: Profile, *, allow_redo: bool, observer: Observer
) -> None:
    """Write the prompts of a recipe and put them out.

    Raises:
        RunError: The folder is a training run.
        ReleaseError: `prompts.augmentation.license` is no licence identifier of the Hub.
        GshfError: Seeds, writer or benchmark files are not as they should be.
    """
    stages = declare_prompt_set(recipe, observer)
    if {stage.name for stage in run.plan} - {stage.name for stage in stages}:
        raise RunError(f"{run.path} is a training run.", hint="Choose another folder with --run.")
    execute(stages, run, recipe, profile, allow_redo=allow_redo, observer=observer)


def declare_prompt_set(recipe: Recipe, observer: Observer) -> list[Stage]:
    """Declare both stages; a benchmark that cannot be looked at is told now, and again in the results and on the card."""
    licence = recipe.prompts.augmentation.license
    if licence is not None and licence not in LICENCES:
        raise ReleaseError(f"prompts.augmentation.license {licence!r} is no licence identifier of the Hub.")
    benchmarks = available(recipe.prompts.augmentation.decontaminate)
    for name, missing in benchmarks.items():
        if missing:
            observer.notice(f"The prompts will NOT be compared with {name}: {missing}")
    written = augmentation.declare_augmentation(recipe, benchmarks, usage.excluded(recipe).sha256)
    return [
        written,
        Stage(
            name=STAGE,
            identity="write-prompt-set/1",
            work="gshf_release.release.prompt_set:write_prompt_set",
            kind="other",
            inputs=(
                Input(written.name, augmentation.ACCEPTED),
                Input(written.name, augmentation.FACTS),
                Input(written.name, RESULTS),
            ),
            outputs=(JSON_LINES, FOLDER),
            keys=("name", "seed", "base", "prompts.augmentation"),
            parameters=PromptSetParameters(
                template_sha256=sha256_file(assets.find("prompts", "model_cards", ".md.j2"))
            ).as_json(),
        ),
    ]


def write_prompt_set(context: StageContext) -> None:
    """Write the set in its three forms."""
    accepted = Accepted.read(context.input(augmentation.STAGE, augmentation.ACCEPTED))
    rows = [SetRow(row.prompt_id, row.prompt) for row in accepted if not row.example]
    lines = [json.dumps({"prompt_id": row.prompt_id, "prompt": row.prompt}, ensure_ascii=False) for row in rows]
    context.output(JSON_LINES).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    folder = context.output(FOLDER)
    (folder / DATA).parent.mkdir(parents=True)
    SetRow.write(rows, folder / DATA)
    facts = json.loads(context.input(augmentation.STAGE, augmentation.FACTS).read_text(encoding="utf-8"))
    (folder / "README.md").write_text(_card(context, len(rows), facts), encoding="utf-8")


def _card(context: StageContext, count: int, facts: Mapping[str, Any]) -> str:
    recipe = context.recipe
    values = {
        "name": recipe.name,
        "count": count,
        "writer": public_writer(recipe),
        "settings": recipe.prompts.augmentation,
        "seeds": facts["seeds"],
        "seed": recipe.seed,
        "checked": facts["checked"],
        "unchecked": facts["unchecked"],
        "table": prompt_table(read_cells(context.results(augmentation.STAGE))),
    }
    body = card_templates.render(TEMPLATE, values)
    return f"---\n{_metadata(recipe, count)}---\n\n{body}"


def public_writer(recipe: Recipe) -> str:
    """Return the writer's name without anything of this machine's file system."""
    model, _, _ = writer_model(recipe)
    if model.startswith(SERVED):
        return model.removeprefix(SERVED)
    if model.startswith(PREFIX):
        package, _, inner = model.removeprefix(PREFIX).partition("/")
        return f"{inner.rpartition('/')[2]} of the Python package {package}"
    return model if HUB_ID.fullmatch(model) and not Path(model).exists() else Path(model).name


def _metadata(recipe: Recipe, count: int) -> str:
    return metadata.data_set(
        licence=recipe.prompts.augmentation.license,
        name=f"{recipe.name}: AI prompts",
        language=(),
        count=count,
        task_categories=["text-generation"],
        tags=["synthetic", "prompts", "self-instruct"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        dataset_info={
            "features": [{"name": "prompt_id", "dtype": "string"}, {"name": "prompt", "dtype": "string"}],
            "splits": [{"name": "train", "num_examples": count}],
        },
    )
