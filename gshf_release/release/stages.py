"""The release stage: `release/<repository>/iter-N/` folders ready for the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gshf_release import __version__
from gshf_release.data.results import Cell, read_cells, select
from gshf_release.errors import ReleaseError, VerificationError
from gshf_release.models import checkpoints
from gshf_release.models.stages import REFERENCE
from gshf_release.preference.offline import SOURCE
from gshf_release.prompts.split import PromptFileParameters
from gshf_release.recipe import Loop, Recipe
from gshf_release.release import (
    assumptions,
    card,
    card_templates,
    chat_templates,
    eval_results,
    manifest,
    rules,
    weights,
)
from gshf_release.release.facts import HUB_ID, Facts
from gshf_release.release.folders import COMPRESSED, DATA_SETS, FINAL
from gshf_release.release.lineage import verify_lineage
from gshf_release.report.figures import learning_curve
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.manifest import versions
from gshf_release.run.stage import RESULTS, Input, Parameters, Stage, Task, is_iteration, iteration_row, iteration_stage

IDENTITY = "write-weights/1"
JUDGMENTS = "judgments.parquet"
FIGURE = "assets/learning.png"
RECIPE_KEYS = (
    *(key for key in Recipe.model_fields if key not in ("name", "loop")),
    *(f"loop.{key}" for key in Loop.model_fields if key != "keep"),
)
"""A card shows, and its manifest hashes, the whole recipe; what `prune` may remove changes nothing in a release."""


class WeightsParameters(Parameters):
    """Say which policies are released, and which stages' numbers and judgments their cards show."""

    iterations: tuple[str, ...]
    """The stages that put out the policies, in order."""
    measured: tuple[str, ...]
    judged: tuple[str, ...]
    facts: str
    """Content hash of the facts and templates."""


def repository_name(recipe: Recipe) -> str:
    """Return the name of the release's folder: the repository without its owner, or the run's name."""
    return (recipe.release.repository or recipe.name).rpartition("/")[2]


def shown(recipe: Recipe, measured: Sequence[Stage]) -> tuple[Input, ...]:
    """Return what the cards of a model know of: what it was made with, and the result cells of stages."""
    made_with = [Input(*source) for source in _made_with(recipe).values()]
    return (*made_with, *(Input(stage.name, RESULTS) for stage in measured if stage.numbers))


def declare_weights(recipe: Recipe, iterations: Sequence[str], measured: Sequence[Stage], facts_sha256: str) -> Stage:
    """Declare the weights.

    Args:
        recipe: The recipe.
        iterations: The stages that put out the policies, in order.
        measured: The stages whose result cells the cards show.
        facts_sha256: Content hash of the facts and templates, part of the fingerprint.
    """
    judged = [stage.name for stage in measured if stage.outputs == (JUDGMENTS,)]
    return Stage(
        name=f"release/{repository_name(recipe)}",
        identity=IDENTITY,
        work="gshf_release.release.stages:write_weights",
        kind="other",
        inputs=(
            Input("base", "source.json"),
            Input("base", "model"),
            Input("final", FINAL),
            *(Input(policy, "model") for policy in iterations),
            *shown(recipe, measured),
            *(Input(stage, JUDGMENTS) for stage in judged),
        ),
        outputs=(*(f"iter-{number}" for number in range(1, len(iterations) + 1)), FINAL),
        keys=RECIPE_KEYS,
        parameters=WeightsParameters(
            iterations=tuple(iterations),
            measured=tuple(stage.name for stage in measured if stage.numbers),
            judged=tuple(judged),
            facts=facts_sha256,
        ).as_json(),
    )


def write_weights(context: StageContext) -> None:
    """Write one folder per iteration: BF16 weights, tokenizer, template, card, figure, manifest."""
    of = context.parameters(WeightsParameters)
    _remove_others(context)
    for iteration, policy in enumerate(of.iterations, 1):
        folder = context.output(f"iter-{iteration}")
        digest = context.input_sha256(policy, "model")
        _cast(context.input(policy, "model"), folder)
        chosen = replace(card_of(context, of, iteration), **_lineage(context.run, iteration))
        if select(chosen.cells, table="test"):
            (folder / FIGURE).parent.mkdir()
            text = learning_curve(chosen.cells, folder / FIGURE)
            chosen = replace(chosen, figure=FIGURE, figure_text=text)
        card.write_card(chosen, folder)
        eval_results.write_eval_results(folder, chosen.cells, _judgments(context, of, iteration))
        base = chat_templates.template_of(context.input("base", "model"))
        chat_templates.check_against_base(folder, base, context.recipe.release.template_change)
        finish(context, folder, {"iteration": iteration, "policy_sha256": digest, "dtype": "BF16"})
        context.progress(iteration, len(of.iterations), "iterations")
    shutil.copyfile(context.input("final", FINAL), context.output(FINAL))


def _remove_others(context: StageContext) -> None:
    """Remove iterations, quantizations and data sets that an earlier recipe released and this one does not have."""
    folder = context.run.folder(context.task)
    for stale in folder.glob("iter-*"):
        if stale.name not in context.task.stage.outputs:
            shutil.rmtree(stale)
    kept = {"GGUF": bool(context.recipe.release.gguf)}
    kept |= {label: name in context.recipe.release.compressed for name, label in COMPRESSED.items()}
    kept |= {kind: kind in context.recipe.release.datasets for kind in DATA_SETS}
    for suffix in (suffix for suffix, wanted in kept.items() if not wanted):
        shutil.rmtree(folder.with_name(f"{folder.name}-{suffix}"), ignore_errors=True)


def _judgments(context: StageContext, of: WeightsParameters, iteration: int) -> list[tuple[str, Path]]:
    """Return the judgments that the card of an iteration shows numbers of: none of a later one."""
    shown = [iteration_stage(number, "") for number in range(1, iteration + 1)]
    return [(stage, context.input(stage, JUDGMENTS)) for stage in of.judged if stage.startswith(tuple(shown))]


def _cast(source: Path, folder: Path) -> None:
    """Save the BF16 cast of an FP32 policy, and check what a user gets: headers, end tokens, logits, where it stops."""
    model = checkpoints.load_model(source, "bf16")
    checkpoints.save(model, checkpoints.load_tokenizer(source), folder)
    weights.check_files(folder)
    weights.check_reload(model, folder)


def card_of(context: StageContext, of: WeightsParameters, iteration: int) -> card.Card:
    """Return what the cards of an iteration show.

    Raises:
        ReleaseError: There is no licence.
    """
    cells: list[Cell] = []
    for stage in of.measured:
        cells += read_cells(context.results(stage))
    facts = Facts.of_run(context.recipe.release.facts, context.run)
    if facts.license is None:
        raise ReleaseError(
            "A release needs a licence.",
            hint="Write a YAML file with `license: apache-2.0` (and base_model: OWNER/NAME) and set release.facts to it.",
        )
    recipe = recipe_up_to(context.recipe, iteration)
    told = card.left_out(facts, recipe, context.recipe.release.repository or "")
    if told and iteration == len(of.iterations):
        context.say(told)
    return card.Card(
        recipe=recipe,
        repository=context.recipe.release.repository or context.recipe.name,
        iteration=iteration,
        cells=visible(cells, iteration),
        facts=facts,
        weights={
            number: context.input_sha256(policy, "model") for number, policy in enumerate(of.iterations[:iteration], 1)
        },
        base_sha256=read_json(context.input("base", "source.json"))["sha256"],
        hashes=_hashes(context),
        assumptions=assumptions.load(context.run, recipe),
        datasets=data_set_repositories(context.recipe),
        templates=card_templates.kept_card_templates(context.run),
    )


def _made_with(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """Return `{what: (stage, file)}` of what came from outside beside base and prompts, and which cards give the hash of."""
    found = {"reward": ("reward/model", "model")}
    if recipe.loop.reference not in ("base", "previous"):
        found["reference"] = (REFERENCE, "model")
    if recipe.pairs.offline is not None:
        found["offline"] = (f"{SOURCE}/pairs", "pairs.parquet")
    return found


def _hashes(context: StageContext) -> dict[str, str]:
    """Return the content hashes of the above; of the pairs from outside, that of the file or folder as it was given."""
    plan = {stage.name: stage for stage in context.run.plan}
    found = {}
    for what, (stage, file) in _made_with(context.recipe).items():
        found[what] = (
            plan[stage].typed(PromptFileParameters).source_sha256
            if what == "offline"
            else context.input_sha256(stage, file)
        )
    return found


def _lineage(run: RunDirectory, iteration: int) -> dict[str, Any]:
    """Return what was traced, or why the card must not say that there were no external responses."""
    try:
        return {"lineage": verify_lineage(run, iteration)}
    except VerificationError as error:
        return {"lineage_problem": error.message}


def data_set_repositories(recipe: Recipe) -> tuple[str, ...]:
    """Return the data sets that are published beside the weights and that these were trained on."""
    repository = recipe.release.repository or ""
    kinds = [kind for kind in recipe.release.datasets if kind == "preferences"]
    return tuple(f"{repository}-{kind}" for kind in kinds if HUB_ID.fullmatch(repository))


def visible(cells: Sequence[Cell], iteration: int) -> list[Cell]:
    """Return the cells that the card of an iteration shows: none of a later one."""
    shown = [iteration_row(number) for number in range(1, iteration + 1)]
    return [entry for entry in cells if not is_iteration(entry.row) or entry.row in shown]


def require_training(run: RunDirectory) -> None:
    """Refuse a card or a publication of a run that only evaluates: it made no model, and claims nothing of how one was made.

    Raises:
        ReleaseError: Names what shows its numbers.
    """
    recipe = run.recipe
    if recipe.evaluation.only:
        raise ReleaseError(
            f"{run.path} only evaluates {recipe.base.model}: it trained nothing, so it has no model card and no release.",
            hint=f"Its numbers: gshf-release report {run.path}. A checkpoint: gshf-release publish FOLDER --facts FILE "
            f"--results {run.path / 'results.json'} --out DIR",
        )


def released_card(run: RunDirectory, iteration: int) -> str | None:
    """Return the card of a release that is finished, or None."""
    name = f"release/{repository_name(run.recipe)}"
    stage = next((stage for stage in run.plan if stage.name == name), None)
    path = run.path / name / f"iter-{iteration}" / "README.md"
    if stage is None or run.manifest(Task(stage)) is None or not path.is_file():
        return None
    return path.read_text(encoding="utf-8")


def final_iteration(run: RunDirectory) -> int:
    """Return the iteration that the run chose as its release, or its last if it has not chosen yet."""
    path = run.path / "final" / FINAL
    return int(read_json(path)["iteration"]) if path.is_file() else run.recipe.loop.iterations


def recipe_up_to(recipe: Recipe, iteration: int) -> Recipe:
    """Return the recipe as if it ended with `iteration`: a later extension changes nothing in an earlier release."""
    return recipe.model_copy(update={"loop": recipe.loop.model_copy(update={"iterations": iteration})})


def finish(context: StageContext, folder: Path, facts: dict[str, Any]) -> None:
    """Check the folder against the rules and write its manifest."""
    declared = context.recipe.release
    rules.check_folder(folder, declared.allowed_findings)
    template = chat_templates.sha256(folder)
    facts |= {} if template is None else {"chat_template_sha256": template}
    facts |= {"template_change": declared.template_change} if declared.template_change else {}
    if declared.allowed_findings:
        facts["allowed_findings"] = [entry.model_dump() for entry in declared.allowed_findings]
    manifest.write_release_manifest(
        folder,
        {
            "name": context.recipe.name,
            "seed": context.seed,
            "recipe_sha256": recipe_up_to(context.recipe, facts["iteration"]).sha256,
            "versions": {**versions(), "gshf-release": __version__},
            **facts,
        },
    )
