"""Plan a run without loading a model: tokens, hours, memory, disk, what is missing here, and what cannot fit.

Counted from the declared stages, the sizes of the models (`models/size`) and the hardware of the profile, by the formulas of
`costs`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gshf_release import environments, pipeline
from gshf_release.data.results import find, read_cells
from gshf_release.errors import CheckpointError, EngineError, GshfError, ReleaseError
from gshf_release.models import checkpoints
from gshf_release.models import size as model_size
from gshf_release.models.size import ModelSize
from gshf_release.planning import costs, makespan, preflight
from gshf_release.planning.costs import Requirement, Work
from gshf_release.planning.makespan import Schedule
from gshf_release.planning.preflight import Finding
from gshf_release.prompts import split
from gshf_release.prompts.split import PoolParameters, PromptFileParameters
from gshf_release.recipe import Recipe, ignored_keys
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import DOCUMENT, RunDirectory
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Stage, check_graph, tasks

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "safetensors")
PROMPT_TOKENS = 52
"""Mean of the 805 AlpacaEval prompts, where the recipe gives none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Says what a run would take."""

    name: str
    tasks: list[dict[str, str]]
    """`{"task", "state"}` in order."""
    parameters: float | None
    reward_parameters: float | None
    prompt_tokens: int
    response_tokens: int
    work: Work
    hours: list[Requirement]
    """Of one device."""
    schedule: Schedule | None
    """When it would be over; None where a size or a rate is unknown."""
    memory: list[Requirement]
    """Per device, step by step; the largest is the peak."""
    memory_gb: float | None
    """Of a device."""
    host: list[Requirement]
    """Memory of a machine, beside what its devices hold; empty where it is little."""
    disk: list[Requirement]
    disk_gb: float
    """Free where the run would be."""
    missing: list[str]
    refusal: str | None
    """Why it cannot fit, in one line."""
    unreleasable: str | None
    """Why a format of `release` cannot be made of the base, in one line with the nearest that fits; None if it is not here."""
    without_effect: list[str]
    """Recipe keys that the algorithm does not read."""
    warnings: list[str]
    """What the recipe asks for that will train poorly."""
    checks: list[Finding]
    """What the checks before any work find; one that is not ok stops the run."""


def make_plan(recipe: Recipe, profile: Profile, path: Path) -> Plan:
    """Return the plan of a recipe.

    Args:
        recipe: What.
        profile: Where; its `hardware` decides hours and memory.
        path: The run directory, which may exist already.

    Raises:
        RecipeError: The recipe names assets that do not exist.
    """
    run = RunDirectory(path)
    stages, missing = _stages(recipe, run)
    sizes = _sizes(recipe)
    base = _base(recipe, sizes.get("base"))
    parameters, reward_parameters = _parameters(recipe, base, sizes.get("reward/model"))
    prompt_tokens, limit = recipe.plan.prompt_tokens or PROMPT_TOKENS, recipe.sampling.max_new_tokens
    response_tokens = min(recipe.plan.response_tokens or _measured_length(path) or limit, limit)
    work = costs.count(stages, recipe, prompt_tokens, response_tokens)
    by_stage = costs.stage_hours(stages, work.tokens, profile, parameters, reward_parameters)
    needed = costs.hours(by_stage)
    device = _device(profile)
    memory = costs.training_memory(recipe, profile, base, parameters, prompt_tokens)
    available = profile.hardware.memory_gb or _device_memory(device)
    memory += costs.inference_memory(
        recipe, profile, base, parameters, reward_parameters, device, prompt_tokens, available
    )
    disk = costs.disk(recipe, work, base, parameters, reward_parameters, prompt_tokens, profile.sharding)
    free = shutil.disk_usage(_existing(path)).free / 1e9
    return Plan(
        name=recipe.name,
        tasks=_states(stages, run, recipe),
        parameters=parameters,
        reward_parameters=reward_parameters,
        prompt_tokens=prompt_tokens,
        response_tokens=response_tokens,
        work=work,
        hours=needed,
        schedule=makespan.make_schedule(stages, by_stage, profile) if costs.known(needed) else None,
        memory=memory,
        memory_gb=available,
        host=costs.host_memory(recipe, profile, parameters),
        disk=disk,
        disk_gb=free,
        missing=[*missing, *_missing(recipe, profile, device, costs.total(disk), free), *_tight(memory, available)],
        refusal=costs.refusal(memory, available, parameters, profile.name),
        unreleasable=_unreleasable(recipe),
        without_effect=ignored_keys.without_effect(recipe),
        warnings=ignored_keys.warnings(recipe),
        checks=preflight.findings(recipe, run),
    )


def _unreleasable(recipe: Recipe) -> str | None:
    try:
        pipeline.require_releasable(recipe)
    except ReleaseError as error:
        return str(error)
    return None


def stage_lines(plan: Plan, where: str = "") -> list[str]:
    """Return one line per stage and state, with the number of its shards; `where` stands before the name."""
    counts = Counter((task["state"], task["task"].partition(" ")[0]) for task in plan.tasks)
    return [
        f"{state:9} {where}{name}" + (f" ({shards} shards)" if shards > 1 else "")
        for (state, name), shards in counts.items()
    ]


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as text, without its tasks."""
    work = plan.work
    finished = sum(task["state"] == State.FINISHED.value for task in plan.tasks)
    sizes = [_size(plan.parameters, "base"), _size(plan.reward_parameters, "reward model")]
    text = [
        f"{plan.name}: {work.iterations} iterations, {work.prompts:,} prompts, {len(plan.tasks)} tasks ({finished} finished)",
        *(
            [f"set without effect under this algorithm: {', '.join(plan.without_effect)}"]
            if plan.without_effect
            else []
        ),
        *(f"Warning: {warning}" for warning in plan.warnings),
        f"parameters: {', '.join(sizes)}",
        f"sample: {work.responses:,} responses, {_count(work.sampled_tokens)} tokens if a mean response has "
        f"{plan.response_tokens} (at most {_count(work.sampled_tokens_at_most)})",
        f"train: {work.pairs:,} pairs at most, {_count(work.trained_tokens)} tokens over all epochs",
        *_listed("hours of one device", plan.hours, "h"),
        *(makespan.schedule_lines(plan.schedule) if plan.schedule is not None else []),
        *_listed("memory of a device", plan.memory, "GB"),
        *(f"  peak while {step}: {amount:.1f} GB" for step, amount in costs.peaks(plan.memory).items()),
        f"  available: {'unknown' if plan.memory_gb is None else f'{plan.memory_gb:.1f} GB'}",
        *(_listed("memory of a machine", plan.host, "GB") if plan.host else []),
        *_listed("disk", plan.disk, "GB"),
        f"  peak: {costs.total(plan.disk):.1f} GB; free: {plan.disk_gb:.1f} GB",
    ]
    text += [f"{check.what}: {'Warning: ' if check.warning else ''}{check.found}" for check in plan.checks if check.ok]
    return (
        [*text, "missing here:", *(f"  {line}" for line in plan.missing)]
        if plan.missing
        else [*text, "missing here: nothing"]
    )


def _listed(title: str, needs: Sequence[Requirement], unit: str) -> list[str]:
    shown = [
        f"  {need.step}: {'unknown' if need.amount is None else f'{need.amount:.2f} {unit}'} = {need.formula}"
        for need in needs
    ]
    known = costs.known(needs)
    return [f"{title}: {costs.total(needs):.1f} {unit} in all" if known and unit == "h" else f"{title}:", *shown]


def _size(parameters: float | None, what: str) -> str:
    return f"{what} unknown (not here)" if parameters is None else f"{what} {parameters / 1e9:.3g} billion"


def _count(count: float) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,.0f}"


def _base(recipe: Recipe, found: ModelSize | None) -> ModelSize:
    """Return the sizes of the base: read where it is here, else as the recipe's `plan` says."""
    said = recipe.plan
    return found or ModelSize(None, said.layers, said.width, said.key_values, said.vocabulary)


def _parameters(recipe: Recipe, base: ModelSize, reward: ModelSize | None) -> tuple[float | None, float | None]:
    """Return the parameters of base and reward model: counted where they are here, else as the recipe's `plan` says."""
    parameters = base.parameters or recipe.plan.parameters
    if reward is not None and reward.parameters:
        return parameters, reward.parameters
    if recipe.reward.checks is not None:
        return parameters, 0.0
    own = recipe.reward.trained and recipe.reward.contrasts.base == "base"
    return parameters, recipe.plan.reward_parameters or (parameters if own else None)


def _stages(recipe: Recipe, run: RunDirectory) -> tuple[list[Stage], list[str]]:
    """Return the training stages, and what keeps the run from having its prompts; they are then declared as if it had."""
    try:
        return pipeline.build(recipe, run).train, []
    except GshfError as error:
        needed = max(stop for _, stop in split.ranges(recipe).values())
        offline = None if recipe.pairs.offline is None else PromptFileParameters(source_sha256="", count=0)
        pool = PoolParameters(source_sha256="", count=needed)
        return pipeline.training(recipe, offline, pool), [str(error)]


def _states(stages: list[Stage], run: RunDirectory, recipe: Recipe) -> list[dict[str, str]]:
    """Return `{"task", "state"}` of every task, in order."""
    by_name, begun = check_graph(stages), (run.path / DOCUMENT).exists()
    rows = []
    for task in tasks(stages):
        condition = state(task, run, recipe, by_name, hashes=False) if begun else State.MISSING
        rows.append({"task": task.label, "state": condition.value})
    return rows


def _sizes(recipe: Recipe) -> dict[str, ModelSize]:
    """Return the sizes of the models that are here, by the stage that reads them.

    Raises:
        CheckpointError: The files of one are damaged.
    """
    found = {}
    for needed in pipeline.models(recipe):
        try:
            path = checkpoints.locate(needed.model, revision=needed.revision, sha256=needed.sha256)
        except CheckpointError:
            continue  # said to be missing elsewhere
        with contextlib.suppress(KeyError):  # a configuration of an unknown kind
            found[needed.stage] = model_size.read_size(path)
    return found


def _measured_length(path: Path) -> int | None:
    """Return the mean length of the base's responses in a run that has measured it, in tokens."""
    results = path / "results.json"
    cells = read_cells(results) if results.is_file() else []
    length = find(cells, table="validation", row="base", metric="length", decoding="T=1")
    return None if length is None or not length.value else max(1, round(length.value))


def _missing(recipe: Recipe, profile: Profile, device: str, disk: float, free: float) -> list[str]:
    """Return what has to be brought here before the run can go through, one line each."""
    lines = []
    for needed in pipeline.models(recipe):
        try:
            checkpoints.locate(needed.model, revision=needed.revision, sha256=needed.sha256)
        except CheckpointError as error:
            lines.append(str(error))
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        lines.append(f"Not installed: {', '.join(absent)}. Run: pip install 'gshf-release[all]'")
    lines += _missing_environment(profile)
    if device == "none":
        lines.append(f"The profile {profile.name!r} asks for cuda, which this machine does not have.")
    if disk > free:
        lines.append(f"The run needs {disk:.0f} GB of disk at its peak; {free:.0f} GB are free.")
    return lines


def _missing_environment(profile: Profile) -> list[str]:
    name = environments.OF_ENGINE.get(profile.engine)
    if name is None:
        return []
    try:
        environments.require(name, profile.device)
    except EngineError as error:
        return [str(error)]
    return []


def _tight(memory: Sequence[Requirement], available: float | None) -> list[str]:
    """Return where a device may turn out too small once everything is counted, at the longest responses."""
    peaks = {} if available is None else costs.peaks(memory)
    return [
        f"Memory: {step} may need {amount:.0f} GB at the longest responses; a device has {available:.0f} GB."
        for step, amount in peaks.items()
        if available is not None and amount > available
    ]


def _device(profile: Profile) -> str:
    """Return `cpu` or `cuda` as the run would choose, or `none` where the profile asks for what is not here."""
    if profile.device == "cpu" or importlib.util.find_spec("torch") is None:
        return "cpu"
    try:
        return checkpoints.device_of(profile.device)
    except CheckpointError:
        return "none"


def _device_memory(device: str) -> float | None:
    """Return the memory of a device of this machine in 1e9 bytes; None for one that is not here."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if device == "cpu" else None


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
