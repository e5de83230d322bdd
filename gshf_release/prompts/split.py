"""The seeded division of prompts into disjoint roles, and its stages.

The order of prompts follows from the seed and their content alone, so neither the order of the file nor its length matters. The
fixed roles come first and the iterations last: raising `loop.iterations` adds prompts without moving any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gshf_release.data import assets, dataset_files, dataset_rows
from gshf_release.data.dataset_files import ColumnUse, OnBadRow, Rows
from gshf_release.data.dataset_rows import PROMPT_EXAMPLE, parse_prompt
from gshf_release.data.hashing import seed_from, sha256_tree, tree
from gshf_release.data.records import Message, Prompt
from gshf_release.data.results import Cell
from gshf_release.errors import DataError, RecipeError
from gshf_release.prompts import usage
from gshf_release.recipe import Recipe
from gshf_release.run import input_copies
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json, write_json
from gshf_release.run.stage import Input, Parameters, Stage, is_iteration, iteration_row

POOL_IDENTITY, EVALUATION_IDENTITY = "read-prompts/1", "read-evaluation-prompts/1"
ROLE_IDENTITY = "split-prompts/1"
FILE = "prompts.parquet"
BAD_ROWS = "bad-rows.json"
SHOWN_BAD_ROWS = 20
POOL = "prompts/pool"
EVALUATION = "prompts/eval"
SOURCE_KEY = "prompts.source"
EVALUATION_KEY = "evaluation.prompts"
FIXED_ROLES = ("validation", "test", "reward", "second_scorer")


class PromptFileParameters(Parameters):
    """Say what is known of a file of prompts, or of preference pairs, when the stages are declared."""

    source_sha256: str
    """Content hash of the file or folder."""
    count: int
    """How many distinct prompts, or pairs, it has to give."""
    columns: str = ""
    """Columns other than the usual ones of which its prompts were made."""


class PoolParameters(PromptFileParameters):
    """Say also what `prompts.exclude` leaves out."""

    excluded_sha256: str = ""
    """Content hash of the prompts that are left out."""
    excluded_bad_rows: int = 0
    """How many bad rows were skipped in the files that are named there."""


class EvaluationPromptsParameters(PromptFileParameters):
    """Say also how many bad rows of `evaluation.prompts` are skipped."""

    bad_rows: int = 0


class RoleParameters(Parameters):
    """Say which part of the ordered pool a role has."""

    start: int
    stop: int


def read_rows(path: Path, system: str | None = None, on_bad_row: OnBadRow = "fail") -> Rows[Prompt]:
    """Return the prompts of a JSONL, JSON or Parquet file, or of a data set's folder, in order and with repetitions.

    Args:
        path: The file or folder.
        system: A system turn for conversations that have none.
        on_bad_row: `fail`, or `skip` and count.

    Raises:
        DataError: A row is bad (file and line are named), or the file cannot be read.
    """

    def parse(row: Any, use: ColumnUse) -> Prompt:
        return with_system(parse_prompt(row, use), system)

    return dataset_rows.read_rows(
        path, parse, example=PROMPT_EXAMPLE, on_bad_row=on_bad_row, skip=dataset_files.SKIP_IN_RECIPE
    )


def read_prompts(path: Path, system: str | None = None, on_bad_row: OnBadRow = "fail") -> list[Prompt]:
    """Return the distinct prompts of `read_rows`."""
    return distinct(read_rows(path, system, on_bad_row))


def distinct(rows: Rows[Prompt]) -> list[Prompt]:
    """Return the prompts without repetitions, in order."""
    return list({prompt.prompt_id: prompt for prompt in rows.values}.values())


def supply(recipe: Recipe, path: Path) -> tuple[list[Prompt], PoolParameters]:
    """Return the prompts of `prompts.source` that may be used, and what the pool is declared with.

    Args:
        recipe: The recipe; prompts of what `prompts.exclude` names are left out.
        path: The source's file.

    Raises:
        DataError: A row is bad.
        RecipeError: Something to exclude is not there.
    """
    rows, excluded = _source_rows(recipe, path), usage.excluded(recipe)
    prompts = _usable(rows, excluded)
    return prompts, PoolParameters(
        source_sha256=sha256_tree(tree(path)),
        count=len(prompts),
        columns=columns_read(rows),
        excluded_sha256=excluded.sha256,
        excluded_bad_rows=excluded.bad,
    )


def _source_rows(recipe: Recipe, path: Path) -> Rows[Prompt]:
    return read_rows(path, recipe.prompts.system, recipe.prompts.on_bad_row)


def _usable(rows: Rows[Prompt], excluded: usage.ExcludedPrompts) -> list[Prompt]:
    ids = excluded.ids
    return [prompt for prompt in distinct(rows) if not ids or usage.content_id(prompt.messages) not in ids]


def columns_read(rows: Rows[Any]) -> str:
    """Return the columns that shape the prompts beside the usual ones."""
    return ", ".join(sorted(rows.columns.read.keys() - set(dataset_rows.PLAIN)))


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    """Return the prompt with a system turn first, unless it has one or none is wanted."""
    if system is None or prompt.messages[0]["role"] == "system":
        return prompt
    return Prompt.of([Message(role="system", content=system), *prompt.messages])


def source_path(reference: str, folder: str) -> Path:
    """Return the file (or data set's folder) of a prompt source: a path, or a name in `folder` of the assets."""
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    return assets.find(reference, folder, ".jsonl")


def evaluation_path(run: RunDirectory | None, reference: str) -> Path:
    """Return the file of `evaluation.prompts`, or the run's copy of it where it is gone."""
    return input_copies.find_input(run, EVALUATION_KEY, reference, lambda: source_path(reference, "eval/prompts"))


def ordered(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Return the prompts in the order the seed gives them."""
    return sorted(prompts, key=lambda prompt: (seed_from(seed, "split", prompt.prompt_id), prompt.prompt_id))


def ranges(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Return `{role: (start, stop)}` in the ordered prompts; the t-th iteration is `iteration-t`."""
    roles = recipe.prompts.roles.model_dump()
    found: dict[str, tuple[int, int]] = {}
    start = 0
    for role in FIXED_ROLES:
        found[role] = (start, start + roles[role])
        start += roles[role]
    for iteration in recipe.loop.sampled:
        found[iteration_row(iteration)] = (start, start + roles["per_iteration"])
        start += roles["per_iteration"]
    return found


def check_supply(recipe: Recipe, available: int) -> None:
    """Refuse a recipe that wants more prompts than there are.

    Raises:
        RecipeError: With both numbers.
    """
    needed = max(stop for _, stop in ranges(recipe).values())
    if needed > available:
        raise RecipeError(
            f"The recipe divides {needed} prompts among its roles, but prompts.source {recipe.prompts.source!r} has "
            f"{available} distinct ones{' beside the excluded' if recipe.prompts.exclude else ''}.",
            hint="Lower prompts.roles or loop.iterations, or give more prompts.",
        )


def declare_prompts(recipe: Recipe, file: PoolParameters) -> list[Stage]:
    """Declare the pool and one stage per role.

    Args:
        recipe: The recipe.
        file: What `supply` says of the file of prompts.
    """
    pool = Stage(
        name=POOL,
        identity=POOL_IDENTITY,
        work="gshf_release.prompts.split:write_pool",
        kind="other",
        outputs=(FILE, BAD_ROWS),
        keys=("seed", "prompts.system", "prompts.on_bad_row"),
        parameters=file.as_json(),
        numbers="gshf_release.prompts.split:pool_cells",
    )
    return [pool, *(_role_stage(role, bounds) for role, bounds in ranges(recipe).items())]


def declare_used(recipe: Recipe, *further: tuple[str, str]) -> Stage:
    """Declare the manifest of who used what.

    Args:
        recipe: The recipe.
        further: `(role, stage)` of prompts that are not from the pool.
    """
    return usage.declare_prompt_usage([*((role, stage_name(role)) for role in ranges(recipe)), *further], FILE)


def _role_stage(role: str, bounds: tuple[int, int]) -> Stage:
    return Stage(
        name=stage_name(role),
        identity=ROLE_IDENTITY,
        work="gshf_release.prompts.split:write_role",
        kind="other",
        inputs=(Input(POOL, FILE),),
        outputs=(FILE,),
        parameters=RoleParameters(start=bounds[0], stop=bounds[1]).as_json(),
    )


def stage_name(role: str) -> str:
    """Return the stage that puts out a role's prompts."""
    return f"{role}/prompts" if is_iteration(role) else f"prompts/{role.replace('_', '-')}"


def write_pool(context: StageContext) -> None:
    """Write all prompts in the run's order, and how many bad rows the source had."""
    recipe = context.recipe
    path = source_path(recipe.prompts.source, "training/prompts")
    rows = _source_rows(recipe, path)
    Prompt.write(ordered(_usable(rows, usage.excluded(recipe)), context.seed), context.output(FILE))
    bad = rows.bad
    document = {"count": len(bad), "first": [place.replace(str(path), path.name, 1) for place in bad[:SHOWN_BAD_ROWS]]}
    write_json(context.output(BAD_ROWS), document)


def pool_cells(context: StageContext) -> list[Cell]:
    """Return the number of prompts, and of bad rows that were skipped."""
    path = context.output(FILE)
    place = {"table": "training", "row": "prompts", "artefact": context.run.relative(path)}
    bad = read_json(context.output(BAD_ROWS))["count"]
    cells = [Cell(metric="prompts", value=len(Prompt.read(path)), **place)]
    cells += [Cell(metric="bad rows skipped", value=bad, **place)] if bad else []
    excluded = context.parameters(PoolParameters).excluded_bad_rows
    return [*cells, Cell(metric="bad rows skipped in prompts.exclude", value=excluded, **place)] if excluded else cells


def write_role(context: StageContext) -> None:
    """Write one role's slice of the pool."""
    part = context.parameters(RoleParameters)
    Prompt.write(Prompt.read(context.input(POOL, FILE))[part.start : part.stop], context.output(FILE))


def declare_evaluation(file: EvaluationPromptsParameters) -> Stage:
    """Declare the stage that puts out the prompts of `evaluation.prompts`, in the file's order.

    Args:
        file: What is known of that file.
    """
    return Stage(
        name=EVALUATION,
        identity=EVALUATION_IDENTITY,
        work="gshf_release.prompts.split:write_evaluation",
        kind="other",
        inputs=(Input(POOL, FILE),),
        outputs=(FILE,),
        keys=("prompts.system",),
        parameters=file.as_json(),
        numbers="gshf_release.prompts.split:evaluation_prompt_cells",
    )


def evaluation_prompt_cells(context: StageContext) -> list[Cell]:
    """Return how many bad rows of `evaluation.prompts` were skipped."""
    place = {"table": "training", "row": "evaluation prompts", "artefact": context.run.relative(context.output(FILE))}
    bad = context.parameters(EvaluationPromptsParameters).bad_rows
    return [Cell(metric="bad rows skipped", value=bad, **place)] if bad else []


def write_evaluation(context: StageContext) -> None:
    """Write the evaluation file's prompts.

    Raises:
        DataError: One of them is also in the pool, from which the run trains.
    """
    reference = str(context.recipe.evaluation.prompts)
    path = evaluation_path(context.run, reference)
    prompts = read_prompts(path, context.recipe.prompts.system, context.recipe.prompts.on_bad_row)
    pool = {prompt.prompt_id for prompt in Prompt.read(context.input(POOL, FILE))}
    shared = [prompt for prompt in prompts if prompt.prompt_id in pool]
    if shared:
        raise DataError(
            f"{path}: {len(shared)} of {len(prompts)} prompts are also in prompts.source "
            f"{context.recipe.prompts.source!r}, the first: {shared[0].messages[-1]['content'][:60]!r}.",
            hint="Evaluate on prompts that training cannot see, or set evaluation.prompts: null.",
        )
    Prompt.write(prompts, context.output(FILE))
