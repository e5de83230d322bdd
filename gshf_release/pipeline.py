"""The one stage graph: what loop, evaluation and release declare, joined. `train`, `eval` and `publish` all run parts of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gshf_release import external_files, loop
from gshf_release.data.results import read_cells, write_csv
from gshf_release.errors import CheckpointError, RunError
from gshf_release.evaluation import benchmark_stages, judgments, requests
from gshf_release.evaluation import stages as evaluation
from gshf_release.evaluation.judging import endpoints
from gshf_release.models import stages as model_stages
from gshf_release.models.checkpoints import locate
from gshf_release.optimization import distributed, reference_logprobs
from gshf_release.preference import offline
from gshf_release.prompts import augmentation, contamination, split, usage
from gshf_release.prompts.split import PoolParameters, PromptFileParameters
from gshf_release.prompts.writers import SERVED, writer_model
from gshf_release.recipe import Base, Evaluation, Recipe, ignored_keys
from gshf_release.recipe.profile import Profile
from gshf_release.release import data_sets, rules
from gshf_release.release import stages as release_stages
from gshf_release.release.quantization import preflight as quantization_preflight
from gshf_release.release.quantization import stage as quantization
from gshf_release.report.tables import results_document
from gshf_release.rewards import training as scorer_training
from gshf_release.rewards.settings import CONTRAST_BASE, KEYS, checkpoints_of, settings, user_code, user_code_of
from gshf_release.rewards.stages import scorer_of
from gshf_release.run import input_copies, staleness, trust
from gshf_release.run.directory import RunDirectory, write_text
from gshf_release.run.execution import Observer, execute
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import EVALUATION, RELEASE, Stage, Task, check_graph, in_part, iteration_row, tasks

EVALUATION_PREFIX = "eval-"
"""Begins the name of a run that only evaluates a model."""


@dataclass(frozen=True, slots=True)
class Graph:
    """All stages of a run in order, and where each command's part ends."""

    train: list[Stage]
    evaluation: list[Stage]
    release: list[Stage]

    @property
    def stages(self) -> list[Stage]:
        """Every stage, in an order in which each comes after its inputs."""
        return [*self.train, *self.evaluation, *self.release]


def build(recipe: Recipe, run: RunDirectory | None = None) -> Graph:
    """Return the graph of a recipe. Reads the prompt files, whose content belongs to the fingerprints.

    Args:
        recipe: The recipe.
        run: A run that may have the prompts already; it then goes on without the files they came from.

    Raises:
        RecipeError: A prompt file is missing, or holds fewer prompts than the roles want.
        DataError: A prompt file has a bad row.
    """
    if recipe.evaluation.only:
        return _evaluation_only(recipe, run)
    pool = external_files.prompt_file(recipe, run)
    split.check_supply(recipe, pool.count)
    train = training(recipe, external_files.offline_file(recipe, run), pool)
    policies = policies_of(recipe)
    sets = [evaluation.test_set(recipe)]
    evaluated: list[Stage] = []
    if recipe.evaluation.prompts is not None:
        file = external_files.evaluation_file(recipe, run)
        evaluated.append(split.declare_evaluation(file))
        sets.insert(0, ("eval", split.EVALUATION, file.count))
    evaluated += evaluation.declare_evaluation(recipe, policies, sets)
    evaluated += benchmark_stages.declare_benchmarks(recipe, requests.read_requests(run), policies)
    measured = [stage for stage in (*train, *evaluated) if stage.numbers]
    learned = [stage for _, stage in policies[1:]]
    sha256, facts = external_files.card_facts(recipe, run)
    weights = release_stages.declare_weights(recipe, learned, measured, sha256)
    released = [weights, *quantization.declare_quantizations(recipe, weights, release_stages.shown(recipe, measured))]
    released += data_sets.declare_data_sets(recipe, [*train, *evaluated], sha256, facts)
    graph = Graph(train, in_part(evaluated, EVALUATION), in_part(released, RELEASE))
    check_graph(graph.stages)
    return graph


def _evaluation_only(recipe: Recipe, run: RunDirectory | None) -> Graph:
    """Return the graph of a run that trains nothing; its model is brought in only if it must answer."""
    asked, policies = requests.read_requests(run), policies_of(recipe)
    needed = benchmark_stages.policies_needed(asked, policies)
    evaluated = in_part(benchmark_stages.declare_benchmarks(recipe, asked, policies), EVALUATION)
    graph = Graph([model_stages.declare_base(recipe)] if needed else [], evaluated, [])
    check_graph(graph.stages)
    return graph


def policies_of(recipe: Recipe) -> list[tuple[str, str]]:
    """Return `(row, stage of its model)` of every policy of a run; the first is the base."""
    if recipe.evaluation.only:
        return [(recipe.name.removeprefix(EVALUATION_PREFIX), "base")]
    iterations = range(1, recipe.loop.iterations + 1)
    return [("base", "base"), *((iteration_row(t), loop.policy_stage(t)) for t in iterations)]


def training(recipe: Recipe, offline_file: PromptFileParameters | None, pool: PoolParameters) -> list[Stage]:
    """Return the training stages of a recipe.

    Args:
        recipe: The recipe.
        offline_file: What is known of the offline pairs, if the recipe names some.
        pool: What is known of the prompts.
    """
    given = [] if offline_file is None else [offline.declare_offline_pairs(offline_file)]
    return [
        model_stages.declare_base(recipe),
        model_stages.declare_rendering(),
        *split.declare_prompts(recipe, pool),
        *given,
        split.declare_used(recipe, *((usage.OFFLINE, stage.name) for stage in given)),
        contamination.declare_contamination(),
        *loop.declare_loop(recipe),
    ]


def streamed(graph: Graph, recipe: Recipe, profile: Profile) -> Graph:
    """Return the graph as several workers run it: the reference log-probabilities of pairs are computed as pairs appear."""
    if profile.parallel_workers == 1 or profile.world_size > 1:
        return graph
    return _with_reference_ahead(graph, recipe)


def as_trained(run: RunDirectory, recipe: Recipe) -> Graph:
    """Return the graph that `train` recorded, whatever profile that had: another command may then work beside it."""
    graph = build(recipe, run)
    ahead = any(reference_logprobs.is_ahead(stage) for stage in run.plan)
    return _with_reference_ahead(graph, recipe) if ahead else graph


def _with_reference_ahead(graph: Graph, recipe: Recipe) -> Graph:
    return replace(graph, train=loop.reference_ahead(graph.train, recipe))


def train(
    run: RunDirectory,
    recipe: Recipe,
    profile: Profile,
    *,
    allow_redo: bool,
    observer: Observer,
    evaluation: bool = False,
) -> None:
    """Bring the training stages to their finished state, and a given second scorer into the run.

    Args:
        run: Where.
        recipe: What.
        profile: How.
        allow_redo: Redo finished work that the recipe no longer matches, even if it is much.
        observer: Hears of the progress.
        evaluation: Evaluate too, on the test prompts and whatever `eval` was asked for before. Several workers evaluate each
            policy while they sample from it for the next iteration; one worker evaluates at the end.
    """
    graph = streamed(build(recipe, run), recipe, profile)
    distributed.check_sharding(recipe.training, profile)
    scorer_training.check_batches(recipe, profile)
    require_models(run, recipe)
    if run.manifest(Task(Stage("base", work=""))) is None:
        require_releasable(recipe)
    if ignored := ignored_keys.without_effect(recipe):
        observer.notice(ignored_keys.notice(recipe))
        run.log("recipe keys without effect", algorithm=recipe.loop.algorithm, keys=ignored)
    for warning in ignored_keys.warnings(recipe):
        observer.notice(f"Warning: {warning}")
        run.log("warning", text=warning)
    external_files.keep_external_files(run, recipe)
    given = [stage for stage in graph.evaluation if stage.name == "second-scorer/model" and not stage.inputs]
    goal = [*graph.train, *(graph.evaluation if evaluation else given)]
    trust.remember(run.path, user_code_of(recipe))
    endpoints.remember_recipe(recipe)
    if evaluation:
        _require_endpoints(run, recipe, graph, goal, trust_code=False)
        judgments.begin_spending(run)
    execute(graph.stages, run, recipe, profile, goal=goal, allow_redo=allow_redo, observer=observer)
    render(run)


def require_releasable(recipe: Recipe) -> None:
    """Refuse formats of `release` that the base model cannot be converted to, if it is here: its policies are like it.

    Raises:
        ReleaseError: Names the recipe key and the nearest that fits.
    """
    with contextlib.suppress(CheckpointError):
        base_model = recipe.base
        quantization_preflight.check_base(
            recipe, lambda: locate(base_model.model, revision=base_model.revision, sha256=base_model.sha256)
        )


def evaluate(
    run: RunDirectory,
    profile: Profile,
    *,
    allow_redo: bool,
    observer: Observer,
    wanted: Sequence[str] | None = None,
    on_purpose: Sequence[str] = (),
    trust_code: bool = False,
) -> None:
    """Bring the evaluation stages to their finished state.

    Args:
        run: A trained run, or one that only evaluates.
        profile: How.
        allow_redo: Redo finished work that the recipe no longer matches, even if it is much.
        observer: Hears of the progress.
        wanted: Only these evaluation stages and what they read; None is the whole evaluation.
        on_purpose: Stages that the user has just asked to redo: `allow_redo` is not needed for them.
        trust_code: Import the Python functions that the run's recipe names as scorers, and ask judges where the run says,
            whoever made the run.

    Raises:
        RunError: Training has not finished.
        EngineError: A scorer that is still needed is a Python function, or a judge at an address, that only the run names.
    """
    recipe = run.recipe
    graph = as_trained(run, recipe)
    goal = graph.evaluation
    if wanted is not None:
        goal = _with_inputs(goal, wanted)
    if recipe.evaluation.only:
        require_models(run, recipe, graph.train)
        goal = [*graph.train, *goal]
    elif wanted is None:
        require_finished(run, recipe, graph.train, graph.stages, _train_command(run))
    else:
        read = {item.stage for stage in goal for item in stage.inputs}
        models = [stage for stage in graph.train if stage.name in read]
        require_finished(run, recipe, models, graph.stages, _train_command(run))
    _trust(run, recipe, graph, goal, trust_code)
    external_files.keep_external_files(run, recipe)
    judgments.begin_spending(run)
    execute(
        graph.stages,
        run,
        recipe,
        profile,
        goal=goal,
        allow_redo=allow_redo,
        on_purpose=on_purpose,
        observer=observer,
    )
    render(run)


def _trust(run: RunDirectory, recipe: Recipe, graph: Graph, goal: Sequence[Stage], trust_code: bool) -> None:
    """Refuse, before any work, to import what only the run names; its recipe may be anybody's."""
    trust.recall(run.path)
    if trust_code:
        trust.remember(run.path, user_code_of(recipe))
    by_name = check_graph(graph.stages)
    for task in tasks(list(goal)):
        scorer = scorer_of(task.stage)
        if scorer is not None and state(task, run, recipe, by_name, hashes=False) is not State.FINISHED:
            for reference in user_code(settings(recipe, scorer)):
                trust.require(reference)
    _require_endpoints(run, recipe, graph, goal, trust_code)


def _require_endpoints(
    run: RunDirectory, recipe: Recipe, graph: Graph, goal: Sequence[Stage], trust_code: bool
) -> None:
    """Refuse, before any work, to ask judges where only the run says that they are."""
    by_name = check_graph(graph.stages)
    asking = [task for task in tasks(list(goal)) if task.stage.identity == judgments.IDENTITY]
    for task in asking:
        if state(task, run, recipe, by_name, hashes=False) is not State.FINISHED:
            judge = judgments.judge_of(run, task.stage)
            if trust_code:
                endpoints.remember(judge.endpoint)
            endpoints.require(judge)


def render(run: RunDirectory) -> None:
    """Write results.csv and results.md beside results.json, which they are rendered from."""
    cells = read_cells(run.path / "results.json")
    write_csv(cells, run.path / "results.csv")
    stale = staleness.find(run)
    notices = [*([stale.line] if stale is not None else []), ignored_keys.notice(run.recipe)]
    notice = "\n\n".join(line for line in notices if line)
    write_text(run.path / "results.md", results_document(run.recipe.name, cells, notice))


def evaluation_run(model: str, folder: Path | None, profile: Profile, *, needs_model: bool) -> RunDirectory:
    """Return the run that evaluates a model and nothing else, begun if there is none.

    Args:
        model: A folder, a Hub id, or a package's file, as in the recipe's `base.model`.
        folder: Where; None is `runs/eval-<name of the model>`.
        profile: How.
        needs_model: Whether the model itself must answer.

    Raises:
        CheckpointError: The model is needed and not here.
        RunError: The folder evaluates another model.
    """
    if needs_model:
        try:
            locate(model)
        except CheckpointError as error:
            raise CheckpointError(
                f"{model!r} is neither a run directory nor a model that is here: {error.message}",
                hint="Fetch it with: hf download MODEL; or: gshf-release prefetch RECIPE",
            ) from error
    path = Path(model).expanduser()
    short = path.resolve().stem if path.suffix == ".gguf" else path.resolve().name
    named = short if path.exists() else Path(model).stem if ":" in model else model.replace("/", "--")
    name = f"{EVALUATION_PREFIX}{requests.ascii_slug(named).lower()}"[:80]
    found = str(path.resolve()) if path.exists() else model
    recipe = Recipe(name=name, base=Base(model=found), evaluation=Evaluation(only=True, prompts=None))
    run = RunDirectory.create(folder or Path("runs") / name, recipe, profile)
    if run.recipe.base.model != found:
        raise RunError(
            f"{run.path} evaluates the model {run.recipe.base.model}, not {found}.",
            hint="Choose another folder with --run.",
        )
    return run


def _with_inputs(stages: Sequence[Stage], wanted: Sequence[str]) -> list[Stage]:
    """Return the wanted stages and those of `stages` that they read, directly or not."""
    names = set(wanted)
    for stage in reversed(stages):
        if stage.name in names:
            names |= {item.stage for item in stage.inputs}
    return [stage for stage in stages if stage.name in names]


def release(run: RunDirectory, profile: Profile, *, repository: str | None, observer: Observer) -> None:
    """Bring the release stages to their finished state.

    Args:
        run: A trained and evaluated run.
        profile: How.
        repository: `OWNER/NAME` that the cards and folders name; None keeps the recipe's.
        observer: Hears of the progress.

    Raises:
        RunError: Training or evaluation has not finished.
        ReleaseError: `repository` is no OWNER/NAME, a format cannot be made of the base, or a card cannot be written, for
            example without a licence.
    """
    require_evaluated(run, repository)
    recipe = _named(run.recipe, repository)
    graph = as_trained(run, recipe)
    external_files.keep_external_files(run, recipe)
    quantization_preflight.check_environments(recipe)
    quantization_preflight.check_base(recipe, lambda: run.folder(Task(Stage("base", work=""))) / "model")
    execute(graph.stages, run, recipe, profile, goal=graph.release, allow_redo=True, observer=observer)
    render(run)


def require_evaluated(run: RunDirectory, repository: str | None) -> None:
    """Refuse what cannot be released under that name.

    Raises:
        RunError: Training or evaluation has not finished.
        ReleaseError: `repository` is no OWNER/NAME.
    """
    recipe = run.recipe
    if repository is not None:
        rules.check_repository(repository)
    graph = build(recipe, run)
    require_finished(run, recipe, graph.train, graph.stages, _train_command(run))
    require_finished(run, recipe, graph.evaluation, graph.stages, f"gshf-release eval {run.path}")


def is_released(run: RunDirectory, repository: str) -> bool:
    """Return whether the run holds the finished release of that name, so that nothing has to be made for it."""
    recipe = _named(run.recipe, repository)
    graph = build(recipe, run)
    by_name = check_graph(graph.stages)
    return all(state(task, run, recipe, by_name) is State.FINISHED for task in tasks(graph.release))


def _named(recipe: Recipe, repository: str | None) -> Recipe:
    """Return the recipe of a release under another name."""
    if repository is None or repository == recipe.release.repository:
        return recipe
    return recipe.model_copy(update={"release": recipe.release.model_copy(update={"repository": repository})})


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a recipe names, and the stage that reads it."""

    stage: str
    model: str
    revision: str | None = None
    sha256: str | None = None


def models(recipe: Recipe) -> list[Model]:
    """Return every model a recipe needs from elsewhere: base, reward models, bases of stand-in scorers."""
    found = [Model("base", recipe.base.model, recipe.base.revision, recipe.base.sha256)]
    if recipe.loop.reference not in ("base", "previous"):
        found.append(Model(model_stages.REFERENCE, recipe.loop.reference, recipe.loop.reference_revision))
    for name, scorer in (("reward", recipe.reward), ("second-scorer", recipe.evaluation.second_scorer)):
        found += [Model(f"{name}/model", model, revision) for model, revision in checkpoints_of(scorer)]
        if scorer.trained and scorer.contrasts.base != "base":
            own = scorer.contrasts
            found.append(Model(f"{name}/model", own.base, own.revision, own.sha256))
    return found


def writers(recipe: Recipe) -> list[Model]:
    """Return the model that writes AI prompts, if it is another than the base and runs here."""
    model, revision, sha256 = writer_model(recipe)
    if model.startswith(SERVED) or model == recipe.base.model:
        return []
    return [Model(augmentation.STAGE, model, revision, sha256)]


def require_models(run: RunDirectory, recipe: Recipe, stages: Sequence[Stage] | None = None) -> None:
    """Refuse to begin while a model that an unfinished stage reads is not here, rather than stop there in the middle.

    Args:
        run: The run.
        recipe: Its recipe.
        stages: Only what these read; None is every model of the recipe.

    Raises:
        CheckpointError: Names the model and the command that fetches it.
    """
    names = None if stages is None else {stage.name for stage in stages}
    for needed in models(recipe):
        if names is not None and needed.stage not in names:
            continue
        if run.manifest(Task(Stage(needed.stage, work=""))) is None:
            try:
                locate(needed.model, revision=needed.revision, sha256=needed.sha256)
            except CheckpointError as error:
                scorer = needed.stage.removesuffix("/model")
                if (
                    scorer in KEYS
                    and input_copies.kept_input(run, f"{KEYS[scorer]}.{CONTRAST_BASE}", needed.model) is not None
                ):
                    continue
                hint = error.hint.replace("prefetch RECIPE", f"prefetch {run.path / 'recipe.yaml'}")
                raise CheckpointError(error.message, hint=hint) from error


def _train_command(run: RunDirectory) -> str:
    return f"gshf-release train {run.path / 'recipe.yaml'} --run {run.path}"


def require_finished(
    run: RunDirectory, recipe: Recipe, wanted: Sequence[Stage], stages: list[Stage], command: str
) -> None:
    """Refuse to go on while an earlier part of the graph is not finished.

    Raises:
        RunError: Names the first unfinished stage and the command that finishes it.
    """
    by_name = check_graph(stages)
    for task in tasks(list(wanted)):
        condition = state(task, run, recipe, by_name)
        if condition is not State.FINISHED:
            stale = staleness.find(run, recipe, stages)
            why = {State.MISSING: "is not finished", State.DAMAGED: "has files that changed"}.get(
                condition, "is outdated"
            )
            told = f" {stale.line}" if stale is not None else ""
            raise RunError(f"{run.path}: {task.label} {why}.{told}", hint=f"Run: {command}")
