"""Hash the files outside a run that it reads, and keep the copies that let it go on without them once it was moved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from gshf_release.data.hashing import sha256_file, sha256_json, sha256_tree, tree
from gshf_release.errors import RecipeError
from gshf_release.evaluation import baselines, benchmarks
from gshf_release.evaluation.judging import judges
from gshf_release.models.checkpoints import locate
from gshf_release.preference import offline
from gshf_release.prompts import split
from gshf_release.prompts.split import EvaluationPromptsParameters, PoolParameters, PromptFileParameters
from gshf_release.recipe import Recipe
from gshf_release.release import assumptions, card_templates, facts
from gshf_release.release import stages as release
from gshf_release.release.facts import Facts
from gshf_release.rewards.settings import CONTRAST_BASE, KEYS
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage, Task


def keep_external_files(run: RunDirectory, recipe: Recipe) -> None:
    """Copy into the run what its later commands read: small files, and the base of a stand-in scorer if it is a folder here.

    Models that stages adopt, and the prompts that training uses, are the run's own as soon as these stages have finished.

    Raises:
        GshfError: Something that the recipe names, other than a judge, is neither there nor kept.
    """
    if recipe.evaluation.prompts is not None and not recipe.evaluation.only:
        reference = recipe.evaluation.prompts
        input_copies.keep_input(run, split.EVALUATION_KEY, reference, split.evaluation_path(run, reference))
    if recipe.pairs.offline is not None and _unfinished(run, f"{offline.SOURCE}/pairs"):
        input_copies.keep_input(run, offline.KEY, recipe.pairs.offline, offline.source_path(run, recipe.pairs.offline))
    card_templates.keep_card_templates(run)
    known = card_facts(recipe, run)[1]
    if recipe.release.facts is not None and known is not None:
        input_copies.keep_input(run, facts.KEY, recipe.release.facts, facts.facts_path(run, recipe.release.facts))
        if known.reported is not None:
            input_copies.keep_input(run, facts.REPORTED_KEY, known.reported, facts.reported_path(run, known.reported))
    scorer = recipe.evaluation.second_scorer
    own = scorer.contrasts.base
    if scorer.trained and own != "base" and Path(own).expanduser().exists() and _unfinished(run, "second-scorer/model"):
        input_copies.keep_input(run, f"{KEYS['second-scorer']}.{CONTRAST_BASE}", own, locate(own))
    for reference in recipe.evaluation.benchmarks:
        benchmarks.keep_benchmark(run, reference)
        baselines.keep_baseline(run, reference)
        judge = benchmarks.load_benchmark(reference, run).judge
        try:
            source = judges.source_path(judge, run)
        except RecipeError:
            continue  # another judge may be chosen; a missing one is named when it is asked
        input_copies.keep_input(run, judges.input_key(judge), judge, source)


def prompt_file(recipe: Recipe, run: RunDirectory | None) -> PoolParameters:
    """Return what the pool is declared with, or was if the file of prompts is no longer there.

    Raises:
        RecipeError: The file, or something to exclude, is missing.
        DataError: A row is bad.
    """
    try:
        return split.supply(recipe, split.source_path(recipe.prompts.source, "training/prompts"))[1]
    except RecipeError:
        recorded = _recorded(run, split.POOL)
        if recorded is None:
            raise
        return recorded.typed(PoolParameters)


def evaluation_file(recipe: Recipe, run: RunDirectory | None) -> EvaluationPromptsParameters:
    """Return what the evaluation prompts are declared with, or were if their file is no longer there.

    Raises:
        RecipeError: The file is missing.
        DataError: It has a bad row.
    """
    try:
        path = split.evaluation_path(run, str(recipe.evaluation.prompts))
    except RecipeError:
        recorded = _recorded(run, split.EVALUATION)
        if recorded is None:
            raise
        return recorded.typed(EvaluationPromptsParameters)
    rows = split.read_rows(path, recipe.prompts.system, recipe.prompts.on_bad_row)
    return EvaluationPromptsParameters(
        source_sha256=sha256_tree(tree(path)),
        count=len(split.distinct(rows)),
        columns=split.columns_read(rows),
        bad_rows=len(rows.bad),
    )


def offline_file(recipe: Recipe, run: RunDirectory | None) -> PromptFileParameters | None:
    """Return what the offline pairs are declared with, or were if their file is no longer there; None without any.

    Raises:
        RecipeError: The file is missing.
        DataError: It has a bad row.
    """
    if recipe.pairs.offline is None:
        return None
    try:
        path = offline.source_path(run, recipe.pairs.offline)
    except RecipeError:
        recorded = _recorded(run, f"{offline.SOURCE}/pairs")
        if recorded is None:
            raise
        return recorded.typed(PromptFileParameters)
    rows = offline.read_preferences(path, recipe.prompts.on_bad_row)
    return PromptFileParameters(
        source_sha256=sha256_tree(tree(path)), count=len(rows.values), columns=split.columns_read(rows)
    )


def card_facts(recipe: Recipe, run: RunDirectory | None) -> tuple[str, Facts | None]:
    """Return the content hash of everything beside the run's stages that shapes its cards, and the facts.

    A run that began without a copy of its facts trains and evaluates without them: the hash is the recorded one, and only the
    release asks for the file.

    Raises:
        RecipeError: The file of the facts, or of the reported numbers, is missing from a run that recorded none.
        ReleaseError: The facts are wrong.
    """
    files = card_templates.files(card_templates.kept_card_templates(run))
    known = Facts()
    if recipe.release.facts is not None:
        try:
            files.append(facts.facts_path(run, recipe.release.facts))
            known = Facts.load(recipe.release.facts, run)
            if known.reported is not None:
                files.append(facts.reported_path(run, known.reported))
        except RecipeError:
            recorded = _recorded_facts(run)
            if recorded is None:
                raise
            return recorded, None
    marked = assumptions.load(run, recipe) if run is not None else []
    return sha256_json([*(sha256_file(path) for path in files), *(asdict(entry) for entry in marked)]), known


def _recorded(run: RunDirectory | None, stage: str) -> Stage | None:
    """Return a stage as the run declared it when it finished, or None."""
    found = {known.name: known for known in run.plan}.get(stage) if run is not None else None
    return None if run is None or found is None or run.manifest(Task(found)) is None else found


def _unfinished(run: RunDirectory, stage: str) -> bool:
    return run.manifest(Task(Stage(stage, work=""))) is None


def _recorded_facts(run: RunDirectory | None) -> str | None:
    stages = [] if run is None else [stage for stage in run.plan if stage.identity == release.IDENTITY]
    return next((stage.typed(release.WeightsParameters).facts for stage in stages), None)
