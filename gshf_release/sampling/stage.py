"""The sampling stage: prompts and a policy in, samples out, one shard of prompts at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import TOO_LONG, Prompt, Sample
from gshf_release.models.chat_tokenizer import KEYS as RENDERING
from gshf_release.models.chat_tokenizer import render, response_text
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.run.context import StageContext
from gshf_release.run.persistent_worker import ENGINE
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling.engines import open_engine
from gshf_release.sampling.protocol import Completion, Decoding, Request, SamplingEngine, fits

FILE = "samples.parquet"
HELD_OUT = ("prompts/validation", "prompts/test", "prompts/eval")
"""Stages of prompts on which policies are compared: every policy answers every one of them, so none is dropped."""


class SamplingParameters(Parameters):
    """Say what is sampled from which policy; `declare` explains each."""

    policy: str
    prompts: str
    decodings: tuple[Decoding, ...]
    purpose: str
    prompts_per_shard: int


def may_drop(prompts: str) -> bool:
    """Return whether a prompt of the stage `prompts` may be dropped and counted where a model cannot read it."""
    return prompts not in HELD_OUT


def declare_samples(
    name: str,
    *,
    policy: str,
    prompts: str,
    count: int,
    decodings: Sequence[Decoding],
    purpose: str,
    prompts_per_shard: int,
) -> Stage:
    """Declare the sampling of `decodings[i]` as response i to each of `count` prompts from a policy.

    Args:
        name: The stage's name.
        policy: The stage that puts out `model`.
        prompts: The stage that puts out `prompts.parquet`.
        count: Number of prompts, known beforehand so that the shards are.
        decodings: One per response.
        purpose: Part of the seed: two stages with the same purpose draw the same uniform numbers for the same prompt, which
            pairs them; exploration uses one purpose per iteration.
        prompts_per_shard: The unit of resumption.
    """
    return Stage(
        name=name,
        identity="sample-responses/1",
        work="gshf_release.sampling.stage:sample_responses",
        kind="sampling",
        inputs=(Input(policy, "model"), Input(prompts, "prompts.parquet")),
        outputs=(FILE,),
        keys=("seed", *RENDERING),
        parameters=SamplingParameters(
            policy=policy,
            prompts=prompts,
            decodings=tuple(decodings),
            purpose=purpose,
            prompts_per_shard=prompts_per_shard,
        ).as_json(),
        shards=max(1, math.ceil(count / prompts_per_shard)),
        runs_in=ENGINE,
    )


def sample_responses(context: StageContext) -> None:
    """Sample this shard's responses; a training prompt that does not fit the policy's context is dropped and counted.

    Raises:
        EngineError: An evaluation prompt does not fit; names it.
    """
    asked = context.parameters(SamplingParameters)
    decodings = asked.decodings
    checkpoint = context.input(asked.policy, "model")
    first = context.task.shard * asked.prompts_per_shard
    prompts = Prompt.read_part(context.input(asked.prompts, "prompts.parquet"), first, first + asked.prompts_per_shard)
    tokenizer = load_tokenizer(checkpoint)
    today, rules = context.today, context.recipe.prompts
    rendered = {prompt.prompt_id: render(tokenizer, prompt.messages, rules, today=today) for prompt in prompts}
    engine = engine_of(context, checkpoint)
    places = [(prompt.prompt_id, index) for prompt in prompts for index in range(len(decodings))]
    requests = [
        Request(
            rendered[prompt_id],
            decodings[index],
            seed_from(context.seed, asked.purpose, prompt_id, index),
            prompt_id,
        )
        for prompt_id, index in places
    ]
    completions = _completions(context, engine, requests, dropping=may_drop(asked.prompts))
    policy_sha256 = context.input_sha256(asked.policy, "model")
    Sample.write(
        (
            Sample(
                prompt_id=prompt_id,
                sample_index=index,
                decoding=decodings[index].label,
                temperature=decodings[index].temperature,
                prompt_ids=request.prompt_ids,
                completion_ids=[] if completion is None else completion.ids,
                text="" if completion is None else response_text(tokenizer, completion.ids, engine.stops),
                finish_reason=TOO_LONG if completion is None else completion.finish_reason,
                policy_sha256=policy_sha256,
            )
            for (prompt_id, index), request, completion in zip(places, requests, completions, strict=True)
        ),
        context.output(FILE),
    )


def _completions(
    context: StageContext, engine: SamplingEngine, requests: Sequence[Request], *, dropping: bool
) -> Iterator[Completion | None]:
    """Return the completions in order; None for a request that is dropped because it does not fit."""
    limit = engine.context_tokens
    fitting = [request for request in requests if not dropping or fits(request, limit)]
    dropped = list(dict.fromkeys(request.prompt_id for request in requests if dropping and not fits(request, limit)))
    if dropped:
        context.log("prompts too long for the policy", prompts=dropped, context_tokens=limit)
        context.say(
            f"{context.task.label}: {len(dropped)} prompt(s) dropped, too long for the policy's context of {limit} tokens"
            f" with an answer; the first: {dropped[0]}."
        )
    completions = iter(engine.generate(fitting, context.progress))
    return (None if dropping and not fits(request, limit) else next(completions) for request in requests)


def engine_of(context: StageContext, checkpoint: Path) -> SamplingEngine:
    """Return the engine that the profile names, opened once for the shards of the stage; the journal hears of every start."""

    def started(seconds: float) -> None:
        context.log("engine started", engine=context.profile.engine, seconds=round(seconds, 3))

    return context.resources.get(checkpoint, lambda: open_engine(checkpoint, context.profile, started))
