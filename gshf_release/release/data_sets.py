"""The data sets of a release: the preference pairs that a policy was trained on, and how its answers were judged.

Both hold the run's own texts alone. Pairs from elsewhere and baseline answers are somebody else's to publish: of the first the
card says how many there were, of the second a row has the sha256, so that whoever has the text can check it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gshf_release import __version__
from gshf_release.data.records import Judgment, Message, Pair, Prompt, Row, Sample
from gshf_release.errors import ReleaseError
from gshf_release.evaluation import stages as evaluation
from gshf_release.loop import reference_stage
from gshf_release.preference.offline import SOURCE
from gshf_release.prompts.split import EVALUATION
from gshf_release.recipe import Recipe
from gshf_release.release import benchmark_judgments, card_templates, licences, manifest, metadata, rules
from gshf_release.release.card import reward_name
from gshf_release.release.facts import HUB_ID, Facts
from gshf_release.release.stages import RECIPE_KEYS, repository_name
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage, iteration_row, iteration_stage
from gshf_release.sampling.stage import FILE as SAMPLES

Kind = Literal["preferences", "judgments"]
FOLDER = "main"


class DataSetParameters(Parameters):
    """Say which data set is written."""

    kind: Kind
    facts: str
    """Content hash of facts and templates."""
    judged: tuple[benchmark_judgments.PublishedStage, ...] = ()
    """The judgments of benchmarks in that of judgments."""


TITLES = {"preferences": "preference pairs", "judgments": "judgments"}
TAGS = {"preferences": ["preference", "dpo"], "judgments": ["evaluation", "judgments"]}


@dataclass(frozen=True, slots=True)
class Preference(Row):
    """A published preference pair: texts as conversations, rewards, and which policy drew the responses."""

    prompt_id: str
    iteration: int
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    chosen_reward: float
    rejected_reward: float
    chosen_index: int
    rejected_index: int
    policy_sha256: str
    scorer_sha256: str
    reference_sha256: str


@dataclass(frozen=True, slots=True)
class PublishedJudgment(Row):
    """A published comparison: the model's answer in full, the baseline's by its hash."""

    set: str
    iteration: int
    prompt_id: str
    prompt: list[Message]
    answer: str
    baseline: str
    baseline_answer_sha256: str
    decoding: str
    preference: float
    model_score: float
    baseline_score: float
    annotator: str
    policy_sha256: str


COLUMNS = {
    "prompt_id": "first 16 hex digits of the sha256 of the conversation",
    "iteration": "whose pairs or answers these are",
    "prompt": "the conversation that waits for an answer",
    "chosen": "the preferred response, as a conversation",
    "rejected": "the other response",
    "chosen_reward": "what the reward gave the chosen response",
    "rejected_reward": "what it gave the rejected one",
    "chosen_index": "which of the responses to the prompt it was",
    "rejected_index": "the same of the rejected one",
    "policy_sha256": "FP32 weights of the policy that drew the responses or the answer",
    "scorer_sha256": "the reward model",
    "reference_sha256": "the reference policy of the optimisation",
    "set": "test for the prompts of the run that training never saw, eval for those of a file",
    "answer": "the model's answer",
    "baseline": "whose answer it was compared with",
    "baseline_answer_sha256": "of the baseline's answer in UTF-8, which is not part of the data",
    "decoding": "how both answers were drawn: greedy, or at a temperature such as T=0.7",
    "preference": "1 the model's answer, 0 the baseline's, 0.5 a tie",
    "model_score": "what the annotator's scorer gave the answer",
    "baseline_score": "what it gave the baseline's",
    "annotator": "who compared",
}


def declare_data_sets(
    recipe: Recipe, sources: Sequence[Stage], facts_sha256: str, facts: Facts | None = None
) -> list[Stage]:
    """Declare the data sets that a recipe wants published; what forbids one is told now, and not after hours of work.

    Args:
        recipe: The recipe.
        sources: The stages before, of which each data set reads some.
        facts_sha256: Content hash of facts and templates.
        facts: Of the release, where they are here to be read.

    Raises:
        ReleaseError: Preference pairs are wanted of a run that makes none of its own, or no licence can be derived.
    """
    if "preferences" in recipe.release.datasets and (
        recipe.loop.algorithm == "raft" or recipe.pairs.source == "offline"
    ):
        raise ReleaseError(
            "release.datasets: this run makes no preference pairs of its own.",
            hint="Take `preferences` out of the list.",
        )
    known = {stage.name for stage in sources}
    inputs, judged = benchmark_judgments.benchmark_judgment_inputs(sources, recipe.loop.iterations)
    for kind in recipe.release.datasets:
        if facts is not None:
            licences.derive(_made_of(recipe, kind, facts))
    return [
        Stage(
            name=f"release/{repository_name(recipe)}-{kind}",
            identity="write-data-set/1",
            work="gshf_release.release.data_sets:write_data_set",
            kind="other",
            inputs=(
                *(Input(name, file) for name, file in _inputs(recipe, kind) if name in known),
                *(inputs if kind == "judgments" else ()),
            ),
            outputs=(FOLDER,),
            keys=RECIPE_KEYS,
            parameters=DataSetParameters(
                kind=kind, facts=facts_sha256, judged=tuple(judged) if kind == "judgments" else ()
            ).as_json(),
        )
        for kind in recipe.release.datasets
    ]


def _inputs(recipe: Recipe, kind: Kind) -> Iterator[tuple[str, str]]:
    if kind == "preferences":
        yield "reward/model", "model"
        yield f"{SOURCE}/pairs", "pairs.parquet"
        for number in recipe.loop.sampled:
            row = iteration_row(number)
            yield f"{row}/prompts", "prompts.parquet"
            yield f"{row}/pairs", "pairs.parquet"
            yield reference_stage(number, recipe), "model"
        return
    for name, prompts in _sets(recipe):
        yield prompts, "prompts.parquet"
        yield f"base/{name}/answers", SAMPLES
        for row in map(iteration_row, range(1, recipe.loop.iterations + 1)):
            yield f"{row}/{name}/answers", SAMPLES
            yield f"{row}/{name}/judgments", "judgments.parquet"


def _sets(recipe: Recipe) -> list[tuple[str, str]]:
    """Return `(set, stage of its prompts)`."""
    return [*([("eval", EVALUATION)] if recipe.evaluation.prompts else []), evaluation.test_set(recipe)[:2]]


def ingredients(kind: Kind, facts: Facts, sets: Sequence[str] = ("eval", "test")) -> dict[str, str | None]:
    """Return the licences of what a data set is made of: prompts, and responses of a policy tuned from the base.

    Args:
        kind: Which data set.
        facts: Of the release.
        sets: The sets of prompts that were judged.
    """
    evaluated = ("evaluation_prompts",) if kind == "judgments" and "eval" in sets else ()
    return facts.ingredients.licences("prompts", *evaluated, "base")


def _made_of(recipe: Recipe, kind: Kind, facts: Facts) -> dict[str, str | None]:
    return ingredients(kind, facts, [name for name, _ in _sets(recipe)])


def write_data_set(context: StageContext) -> None:
    """Write the folder of a data set: Parquet, card, manifest."""
    of = context.parameters(DataSetParameters)
    facts, folder = Facts.of_run(context.recipe.release.facts, context.run), context.output(FOLDER)
    made_of = _made_of(context.recipe, of.kind, facts)
    licence = licences.derive(made_of)
    (folder / "data").mkdir(parents=True)
    counts = {}
    loop = context.recipe.loop
    for iteration in loop.sampled if of.kind == "preferences" else range(1, loop.iterations + 1):
        path = folder / "data" / f"{iteration_row(iteration)}.parquet"
        counts[iteration] = (_write_pairs if of.kind == "preferences" else _write_judgments)(context, iteration, path)
    judged = benchmark_judgments.write_benchmark_judgments(context, of.judged, folder)
    (folder / "README.md").write_text(_card(context, licence, made_of, counts, judged), encoding="utf-8")
    rules.check_folder(folder)
    recipe_sha256 = context.recipe.sha256
    versions = {"gshf-release": __version__}
    manifest.write_release_manifest(
        folder, {"name": context.recipe.name, "recipe_sha256": recipe_sha256, "versions": versions}
    )


def _write_pairs(context: StageContext, iteration: int, path: Path) -> int:
    """Write the pairs of an iteration; return their number."""
    place = iteration_row(iteration)
    prompts = {row.prompt_id: row for row in Prompt.read(*context.inputs(f"{place}/prompts", "prompts.parquet"))}
    pairs = Pair.read(*context.inputs(f"{place}/pairs", "pairs.parquet"))
    scorer = context.input_sha256("reward/model", "model")
    reference = context.input_sha256(reference_stage(iteration, context.recipe), "model")
    rows = [
        Preference(
            prompt_id=pair.prompt_id,
            iteration=iteration,
            prompt=prompts[pair.prompt_id].messages,
            chosen=[Message(role="assistant", content=pair.chosen_text)],
            rejected=[Message(role="assistant", content=pair.rejected_text)],
            chosen_reward=pair.chosen_reward,
            rejected_reward=pair.rejected_reward,
            chosen_index=pair.chosen_index,
            rejected_index=pair.rejected_index,
            policy_sha256=pair.policy_sha256,
            scorer_sha256=scorer,
            reference_sha256=reference,
        )
        for pair in pairs
    ]
    Preference.write(rows, path)
    return len(rows)


def _write_judgments(context: StageContext, iteration: int, path: Path) -> int:
    """Write the judgments of an iteration's answers, of every set; return their number."""
    rows: list[PublishedJudgment] = []
    for name, stage in _sets(context.recipe):
        prompts = {row.prompt_id: row for row in Prompt.read(*context.inputs(stage, "prompts.parquet"))}
        place = iteration_stage(iteration, name)
        own, base = (_answers(context, where) for where in (place, f"base/{name}"))
        for judgment in Judgment.read(*context.inputs(f"{place}/judgments", "judgments.parquet")):
            answer, other = (found[judgment.prompt_id, judgment.decoding] for found in (own, base))
            rows.append(
                PublishedJudgment(
                    set=name,
                    iteration=iteration,
                    prompt_id=judgment.prompt_id,
                    prompt=prompts[judgment.prompt_id].messages,
                    answer=answer.text,
                    baseline="base",
                    baseline_answer_sha256=hashlib.sha256(other.text.encode()).hexdigest(),
                    decoding=judgment.decoding,
                    preference=judgment.preference,
                    model_score=judgment.model_score,
                    baseline_score=judgment.baseline_score,
                    annotator=judgment.annotator,
                    policy_sha256=answer.policy_sha256,
                )
            )
    PublishedJudgment.write(rows, path)
    return len(rows)


def _answers(context: StageContext, place: str) -> dict[tuple[str, str], Sample]:
    samples = Sample.read(*context.inputs(f"{place}/answers", SAMPLES))
    return {(sample.prompt_id, sample.decoding): sample for sample in samples}


def _card(
    context: StageContext,
    licence: str,
    made_of: Mapping[str, str | None],
    counts: Mapping[int, int],
    judged: Sequence[tuple[str, str, str, int]],
) -> str:
    recipe, kind = context.recipe, context.parameters(DataSetParameters).kind
    facts = Facts.of_run(recipe.release.facts, context.run)
    repository = recipe.release.repository or recipe.name
    title = f"{facts.title or repository.rpartition('/')[2]}: {TITLES[kind]}"
    row: type[Row] = Preference if kind == "preferences" else PublishedJudgment
    names = {
        "prompts": recipe.prompts.source,
        "evaluation prompts": recipe.evaluation.prompts,
        "base": recipe.base.model,
    }
    stated = {what.replace(" ", "_"): what for what in made_of}
    values = {
        "title": title,
        "facts": facts,
        "recipe": recipe,
        "repository": repository,
        "name": f"{repository}-{kind}",
        "published": bool(HUB_ID.fullmatch(repository)),
        "counts": counts,
        "columns": [(column, COLUMNS[column]) for column in row.schema().names],
        "licence": licence,
        "made_of": [
            (what, getattr(facts.ingredients, key).name or _shown(str(names[what])), made_of[what])
            for key, what in stated.items()
        ],
        "reward": reward_name(recipe),
        "external": _external(context) if kind == "preferences" else 0,
        "sets": [name for name, _ in _sets(recipe)],
        "stand_in": evaluation.STAND_IN,
        "judged": judged,
        "judged_columns": list(benchmark_judgments.COLUMNS.items()),
        "system": recipe.prompts.system,
    }
    head = metadata.data_set(
        licence=licence,
        name=title,
        language=facts.language,
        count=sum(counts.values()) + sum(count for *_, count in judged),
        task_categories=["text-generation"],
        tags=["rlhf", "synthetic", *TAGS[kind], *facts.tags],
        configs=_configs(counts, bool(judged)),
    )
    body = card_templates.render(
        f"{kind}{card_templates.SUFFIX}", values, card_templates.kept_card_templates(context.run)
    )
    return f"---\n{head}---\n\n{body}"


def _shown(model: str) -> str:
    return model if HUB_ID.fullmatch(model) else Path(model).name


def _configs(counts: Mapping[int, int], judged: bool) -> list[dict[str, Any]]:
    """Return one configuration with all rows, which is the default, one for each iteration, one of benchmarks' judgments."""
    parts = {"default": "data/*.parquet"} | {
        iteration_row(number): f"data/iteration-{number}.parquet" for number in counts
    }
    parts |= {benchmark_judgments.FOLDER: f"{benchmark_judgments.FOLDER}/*.parquet"} if judged else {}
    return [{"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in parts.items()]


def _external(context: StageContext) -> int:
    """Return how many pairs from elsewhere the run trained on beside its own."""
    if context.recipe.pairs.source == "online":
        return 0
    return len(Pair.read(*context.inputs(f"{SOURCE}/pairs", "pairs.parquet")))
