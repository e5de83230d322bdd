"""The stages of a scorer: its own training from contrasts, or a given checkpoint; and the scoring of samples."""

from __future__ import annotations

import shutil
from pathlib import Path

from gshf_release import checkpoints
from gshf_release.recipe import Contrasts, Recipe
from gshf_release.records import Contrast, Message, Prompt, Sample, Score
from gshf_release.rewards.contrasts import Answer, build
from gshf_release.rewards.sequence_classification import SequenceClassificationReward, open_scorer
from gshf_release.rewards.settings import KEYS, Scorer, settings
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


def declare_model(recipe: Recipe, scorer: Scorer) -> list[Stage]:
    """Declare what puts out `<scorer>/model`: a given checkpoint, or training from contrasts."""
    chosen, key = settings(recipe, scorer), KEYS[scorer]
    if chosen.model is not None:
        return [
            Stage(
                name=f"{scorer}/model",
                work="gshf_release.rewards.stages:adopt",
                outputs=("model",),
                keys=(f"{key}.model", f"{key}.revision"),
                parameters={"scorer": scorer},
            )
        ]
    contrasts = chosen.contrasts
    prompts = f"prompts/{scorer}"
    decoding = Decoding(contrasts.temperature, recipe.sampling.max_new_tokens)
    answers = sampling.declare(
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
        work="gshf_release.rewards.stages:write_contrasts",
        inputs=(Input(prompts, "prompts.parquet"), Input(answers.name, sampling.FILE)),
        outputs=("contrasts.parquet",),
        keys=("seed", f"{key}.contrasts.kinds", f"{key}.contrasts.held_out"),
        parameters={"scorer": scorer},
    )
    return [answers, pairs, _training_stage(scorer, key, uses_base=contrasts.base == "base")]


def _training_stage(scorer: str, key: str, *, uses_base: bool) -> Stage:
    inputs = [Input(f"{scorer}/contrasts", "contrasts.parquet")]
    if uses_base:
        inputs.append(Input("base", "model"))
    return Stage(
        name=f"{scorer}/model",
        work="gshf_release.rewards.training:train",
        inputs=tuple(inputs),
        outputs=("model", "held-out.parquet", "training.json"),
        keys=("seed", f"{key}.contrasts"),
        parameters={"scorer": scorer},
        numbers="gshf_release.rewards.training:numbers",
    )


def declare_scores(name: str, *, samples: Stage, prompts: str, scorer: Scorer) -> Stage:
    """Declare the scoring of a sampling stage's responses, shard by shard."""
    return Stage(
        name=name,
        work="gshf_release.rewards.stages:score",
        inputs=(
            Input(f"{scorer}/model", "model"),
            Input(prompts, "prompts.parquet"),
            Input(samples.name, sampling.FILE, scope="shard"),
        ),
        outputs=("scores.parquet",),
        parameters={"scorer": scorer, "prompts": prompts, "samples": samples.name},
        shards=samples.shards,
    )


def adopt(context: StageContext) -> None:
    """Copy a given reward model into the run, having loaded it once."""
    chosen = settings(context.recipe, context.parameter("scorer"))
    source = checkpoints.locate(str(chosen.model), revision=chosen.revision)
    SequenceClassificationReward(source, precision="bf16", device="cpu", batch=1)
    copy_checkpoint(source, context.output("model"))


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy the weights, configuration and tokenizer of a checkpoint folder, and nothing else."""
    target.mkdir(parents=True)
    for pattern in CHECKPOINT_FILES:
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, target / path.name)


def write_contrasts(context: StageContext) -> None:
    """Write the contrast pairs of a stand-in scorer."""
    scorer = context.parameter("scorer")
    chosen: Contrasts = settings(context.recipe, scorer).contrasts
    prompts = {
        prompt.prompt_id: prompt for prompt in Prompt.read(context.input(f"prompts/{scorer}", "prompts.parquet"))
    }
    samples = Sample.read(*context.inputs(f"{scorer}/answers", sampling.FILE))
    answers = [Answer(prompts[sample.prompt_id], sample) for sample in samples]
    rows = build(answers, chosen.kinds, seed=context.seed, held_out=chosen.held_out)
    Contrast.write(rows, context.output("contrasts.parquet"))


def load_scorer(context: StageContext, scorer: str) -> SequenceClassificationReward:
    """Return the scorer of a run, ready to score on the profile's device."""
    return open_scorer(context, context.input(f"{scorer}/model", "model"))


def score(context: StageContext) -> None:
    """Score this shard's responses."""
    scorer = context.parameter("scorer")
    samples = Sample.read(context.input(context.parameter("samples"), sampling.FILE))
    prompts = {
        prompt.prompt_id: prompt.messages
        for prompt in Prompt.read(context.input(context.parameter("prompts"), "prompts.parquet"))
    }
    conversations = [[*prompts[sample.prompt_id], Message(role="assistant", content=sample.text)] for sample in samples]
    rewards = load_scorer(context, scorer).score(conversations)
    digest = context.input_sha256(f"{scorer}/model", "model")
    Score.write(
        (
            Score(sample.prompt_id, sample.sample_index, float(reward), digest)
            for sample, reward in zip(samples, rewards, strict=True)
        ),
        context.output("scores.parquet"),
    )
