"""The stages of a scorer: its own training from contrasts, or a given model; and the scoring of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gshf_release.data.records import Contrast, Message, Prompt, RuleCheck, Sample, Score
from gshf_release.errors import EngineError
from gshf_release.models.batching import join_processes
from gshf_release.prompts.instruction_rules import RULES_VERSION
from gshf_release.recipe import Contrasts, Recipe
from gshf_release.rewards import Inference, PairwiseModel, models
from gshf_release.rewards.contrasts import Answer, build
from gshf_release.rewards.ensemble import score_readable
from gshf_release.rewards.instruction_checks import InstructionChecks
from gshf_release.rewards.pairwise import against, readable_against, readable_rivals, round_robin
from gshf_release.rewards.settings import KEYS, SCORERS, Scorer, calls_user_code, opponents_of, settings
from gshf_release.run import launch
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

TRAINING_IDENTITY = "train-reward-model/1"
COPY_IDENTITY, CONTRASTS_IDENTITY = "copy-reward-model/1", "build-contrasts/1"
CHECKS_IDENTITY = f"adopt-checks/{RULES_VERSION}"
CHECKS_FILE = "rule-checks.parquet"
SCORING_IDENTITY = "score-responses/1"


class ScorerParameters(Parameters):
    """Say which scorer a stage brings in, or trains."""

    scorer: Scorer


class ScoringParameters(Parameters):
    """Say what is scored by which scorer; `declare_scores` explains each."""

    scorer: Scorer
    prompts: str
    samples: str
    opponents: str | None = None


def scorer_of(stage: Stage) -> Scorer | None:
    """Return which scorer a stage makes or asks, or None."""
    if stage.identity == SCORING_IDENTITY:
        return stage.typed(ScoringParameters).scorer
    makes = stage.identity in (COPY_IDENTITY, CHECKS_IDENTITY, CONTRASTS_IDENTITY, TRAINING_IDENTITY)
    return stage.typed(ScorerParameters).scorer if makes else None


def declare_model(recipe: Recipe, scorer: Scorer) -> list[Stage]:
    """Declare what puts out `<scorer>/model`: a given model, ensemble or list of rules, or training from contrasts."""
    chosen, key = settings(recipe, scorer), KEYS[scorer]
    if not chosen.trained:
        names = ("model", "revision", "kind", "models") if chosen.checks is None else ("checks", "all_or_nothing")
        return [
            Stage(
                name=f"{scorer}/model",
                identity=COPY_IDENTITY if chosen.checks is None else CHECKS_IDENTITY,
                work="gshf_release.rewards.stages:copy_reward_model",
                kind="other",
                outputs=("model",),
                keys=tuple(f"{key}.{name}" for name in names),
                parameters=ScorerParameters(scorer=scorer).as_json(),
            )
        ]
    contrasts = chosen.contrasts
    prompts = f"prompts/{scorer}"
    decoding = Decoding(contrasts.temperature, recipe.sampling.max_new_tokens)
    answers = sampling.declare_samples(
        f"{scorer}/answers",
        policy="base",
        prompts=prompts,
        count=recipe.prompts.roles.model_dump()[scorer.replace("-", "_")],
        decodings=[decoding] * contrasts.samples_per_prompt,
        purpose=scorer,
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
    pairs = Stage(
        name=f"{scorer}/contrasts",
        identity=CONTRASTS_IDENTITY,
        work="gshf_release.rewards.stages:write_contrasts",
        kind="other",
        inputs=(Input(prompts, "prompts.parquet"), Input(answers.name, sampling.FILE)),
        outputs=("contrasts.parquet",),
        keys=("seed", f"{key}.contrasts.kinds", f"{key}.contrasts.held_out"),
        parameters=ScorerParameters(scorer=scorer).as_json(),
    )
    return [answers, pairs, _training_stage(scorer, key, uses_base=contrasts.base == "base")]


def _training_stage(scorer: Scorer, key: str, *, uses_base: bool) -> Stage:
    inputs = [Input(f"{scorer}/contrasts", "contrasts.parquet")]
    if uses_base:
        inputs.append(Input("base", "model"))
    return Stage(
        name=f"{scorer}/model",
        identity=TRAINING_IDENTITY,
        work="gshf_release.rewards.training:train_reward_model",
        kind="reward training",
        inputs=tuple(inputs),
        outputs=("model", "held-out.parquet", "training.json"),
        keys=("seed", f"{key}.contrasts"),
        parameters=ScorerParameters(scorer=scorer).as_json(),
        numbers="gshf_release.rewards.training:reward_training_cells",
        distributed=True,
    )


def declare_scores(
    recipe: Recipe,
    name: str,
    *,
    samples: Stage,
    prompts: str,
    scorer: Scorer,
    opponents: str | None = None,
) -> Stage:
    """Declare the scoring of a sampling stage's responses, shard by shard.

    The training processes divide it, but for a user's function, which each of them would call, and for checks, which are fast.

    Args:
        recipe: Describes the scorer.
        name: The stage's name.
        samples: The responses.
        prompts: The stage of the prompts.
        scorer: Which scorer.
        opponents: For a pairwise scorer, the stage of the base's answers to the same prompts, the first of which each
            response is compared with; None compares the responses to a prompt with each other.
    """
    chosen = settings(recipe, scorer)
    inputs = [Input(samples.name, sampling.FILE, scope="shard")]
    if opponents not in (None, samples.name):
        inputs.append(Input(str(opponents), sampling.FILE, scope="shard"))
    return Stage(
        name=name,
        identity=SCORING_IDENTITY,
        work="gshf_release.rewards.stages:write_scores",
        kind="scoring" if chosen.checks is None else "other",
        inputs=(Input(f"{scorer}/model", "model"), Input(prompts, "prompts.parquet"), *inputs),
        outputs=("scores.parquet", *([CHECKS_FILE] if chosen.checks is not None else [])),
        parameters=ScoringParameters(
            scorer=scorer, prompts=prompts, samples=samples.name, opponents=opponents
        ).as_json(),
        shards=samples.shards,
        distributed=not calls_user_code(chosen) and chosen.checks is None,
    )


def declare_scores_of_both(
    recipe: Recipe, place: str, *, samples: Stage, prompts: str, base_answers: str
) -> list[Stage]:
    """Declare `<place>/<scorer>-scores` of answers; a pairwise scorer compares them with the base's answers."""
    return [
        declare_scores(
            recipe,
            f"{place}/{scorer}-scores",
            samples=samples,
            prompts=prompts,
            scorer=scorer,
            opponents=opponents_of(recipe, scorer, base_answers),
        )
        for scorer in SCORERS
    ]


def copy_reward_model(context: StageContext) -> None:
    """Bring a given scorer into the run, having opened it once."""
    models.copy_models(settings(context.recipe, context.parameters(ScorerParameters).scorer), context.output("model"))


def write_contrasts(context: StageContext) -> None:
    """Write the contrast pairs of a stand-in scorer."""
    scorer = context.parameters(ScorerParameters).scorer
    chosen: Contrasts = settings(context.recipe, scorer).contrasts
    prompts = {
        prompt.prompt_id: prompt for prompt in Prompt.read(context.input(f"prompts/{scorer}", "prompts.parquet"))
    }
    samples = Sample.read(*context.inputs(f"{scorer}/answers", sampling.FILE))
    answers = [Answer(prompts[sample.prompt_id], sample) for sample in samples if sample.answered]
    rows = build(answers, chosen.kinds, seed=context.seed, held_out=chosen.held_out)
    Contrast.write(rows, context.output("contrasts.parquet"))


def write_scores(context: StageContext) -> None:
    """Score this shard's responses; a training response that is too long for the scorer gets no score, which is counted.

    Raises:
        EngineError: The answer to an evaluation prompt is too long for the scorer; names the prompt.
        RunError: Another number of processes came together than the profile asks for.
    """
    if context.task.stage.distributed:
        join_processes(context.profile)
    of = context.parameters(ScoringParameters)
    samples = [row for row in Sample.read(context.input(of.samples, sampling.FILE)) if row.answered]
    asked = context.input(of.prompts, "prompts.parquet")
    answered = {sample.prompt_id for sample in samples}
    prompts = {prompt.prompt_id: prompt.messages for prompt in Prompt.read_where(asked, "prompt_id", answered)}
    folder = context.input(f"{of.scorer}/model", "model")
    chosen, how = settings(context.recipe, of.scorer), Inference.of(context.profile, context.today)
    model = context.resources.get(folder, lambda: models.open_adopted(chosen, folder, how))
    folded = getattr(model, "folded", 0)
    digest = context.input_sha256(f"{of.scorer}/model", "model")
    if isinstance(model, InstructionChecks):
        rows = _check_rules(context, model, samples, prompts, digest)
    elif isinstance(model, PairwiseModel):
        rows = _compare(context, of.opponents, model, samples, prompts, digest)
    else:
        conversations = [
            [*prompts[sample.prompt_id], Message(role="assistant", content=sample.text)] for sample in samples
        ]
        rewards, deviations, read = score_readable(model, conversations)
        rows = [
            Score(sample.prompt_id, sample.sample_index, float(rewards[row]), digest, _at(deviations, row))
            for row, sample in enumerate(samples)
            if read is None or read[row]
        ]
    if launch.rank() > 0:
        return
    _tell_unscored(context, samples, rows)
    Score.write(rows, context.output("scores.parquet"))
    folded = getattr(model, "folded", 0) - folded
    if folded:
        context.log("system turn folded into the first user turn", conversations=folded)


def _check_rules(
    context: StageContext,
    model: InstructionChecks,
    samples: Sequence[Sample],
    prompts: Mapping[str, Sequence[Message]],
    digest: str,
) -> list[Score]:
    """Write which rules each response keeps, and return the scores."""
    checks = [
        model.check(prompts[sample.prompt_id], sample.text, ended=sample.finish_reason != "length")
        for sample in samples
    ]
    RuleCheck.write(
        (
            RuleCheck(sample.prompt_id, sample.sample_index, sample.decoding, *check)
            for sample, found in zip(samples, checks, strict=True)
            for check in found
        ),
        context.output(CHECKS_FILE),
    )
    rewards = model.rewards(checks)
    return [
        Score(sample.prompt_id, sample.sample_index, float(reward), digest)
        for sample, reward in zip(samples, rewards, strict=True)
    ]


def _tell_unscored(context: StageContext, samples: Sequence[Sample], rows: Sequence[Score]) -> None:
    """Say how many responses the scorer could not read, or stop where none may be missing."""
    scored = {(row.prompt_id, row.sample_index) for row in rows}
    missing = [row for row in samples if (row.prompt_id, row.sample_index) not in scored]
    if not missing:
        return
    of, first = context.parameters(ScoringParameters), missing[0]
    if not sampling.may_drop(of.prompts):
        raise EngineError(
            f"{context.task.label}: the answer to the prompt {first.prompt_id} ({len(first.completion_ids)} tokens) is too"
            f" long for the {of.scorer} model, and {len(missing) - 1} more.",
            hint="Lower max_new_tokens under sampling and evaluation, or choose a scorer that reads longer texts.",
        )
    context.log("responses too long to score", scorer=of.scorer, responses=len(missing))
    context.say(
        f"{context.task.label}: {len(missing)} of {len(samples)} responses are too long for the {of.scorer} model and take no"
        f" part; the first answers the prompt {first.prompt_id}."
    )


def _at(deviations: npt.NDArray[np.float32] | None, row: int) -> float | None:
    return None if deviations is None else float(deviations[row])


def _compare(
    context: StageContext,
    opponents: str | None,
    model: PairwiseModel,
    samples: Sequence[Sample],
    prompts: Mapping[str, Sequence[Message]],
    digest: str,
) -> list[Score]:
    """Return a pairwise model's scores: against the base's first answers where the stage names them, else a round robin."""
    responses = {(sample.prompt_id, sample.sample_index): sample.text for sample in samples}
    if opponents is None:
        responses = readable_rivals(model, prompts, responses)
        rewards = round_robin(model, prompts, responses)
    else:
        answers = Sample.read(context.input(opponents, sampling.FILE))
        first = {answer.prompt_id: answer.text for answer in answers if answer.sample_index == 0}
        responses = readable_against(model, prompts, responses, first)
        rewards = against(model, prompts, responses, first)
    return [Score(prompt_id, index, rewards[prompt_id, index], digest) for prompt_id, index in responses]
