"""Rank responses by their reward, less what the recipe charges for length and for leaving the base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from gshf_release.data.records import LogRatio, Sample, Score
from gshf_release.data.results import Cell
from gshf_release.models.batching import join_processes
from gshf_release.models.checkpoints import device_of, load_model
from gshf_release.models.logprobs import Tokens, completion_logps
from gshf_release.recipe import Pairs
from gshf_release.run import launch
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage, iteration_row, iteration_stage

LOG_RATIOS = "log-ratios.parquet"
Unread = Literal["prompt too long", "response too long to score"]
"""Why a response that was asked for has no reward: the policy, or the scorer, cannot read so long a text."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A response with its reward."""

    sample: Sample
    reward: float
    value: float
    """The reward after `length_penalty` and `kl_weight`."""
    may_win: bool
    """False for a cut response where the recipe says `cut: lose`."""
    deviation: float | None = None
    """Standard deviation of the reward over the members of an ensemble."""

    @property
    def rank(self) -> tuple[bool, float]:
        """Compare by this: whatever may not win ranks below everything that may."""
        return self.may_win, self.value

    @property
    def index(self) -> int:
        """The sample's index, by which ties are broken."""
        return self.sample.sample_index


class PromptResponses(NamedTuple):
    """Holds what an iteration has of one prompt."""

    found: list[Candidate]
    unread: Unread | None = None
    """Why responses are missing among them, if some are."""
    missing: int = 0
    """How many responses are missing for that reason."""


def drawn(samples: Sequence[Sample], found: list[Candidate]) -> PromptResponses:
    """Return the candidates for one prompt with the reason why there are fewer than responses asked for."""
    dropped = sum(not entry.answered for entry in samples)
    if dropped:
        return PromptResponses(found, "prompt too long", dropped)
    missing = len(samples) - len(found)
    return PromptResponses(found, "response too long to score", missing) if missing else PromptResponses(found)


def candidates(
    samples: Sequence[Sample],
    rewards: Mapping[int, float],
    rules: Pairs,
    log_ratios: Mapping[int, float] | None = None,
    deviations: Mapping[int, float | None] | None = None,
) -> list[Candidate]:
    """Return the responses that have a reward, by sample index.

    Args:
        samples: The responses to one prompt.
        rewards: `{sample index: reward}`; a response without one counts as missing.
        rules: The recipe's rules.
        log_ratios: `{sample index: log pi_(t-1) - log pi_0}` (nats), needed if `rules.kl_weight` is not 0.
        deviations: `{sample index: standard deviation of the reward}` where an ensemble gave it.
    """
    found = []
    for entry in sorted(samples, key=lambda entry: entry.sample_index):
        if entry.sample_index not in rewards:
            continue
        reward = rewards[entry.sample_index]
        value = reward - rules.length_penalty * length(entry, rules.length_unit)
        if rules.kl_weight:
            value -= rules.kl_weight * (log_ratios or {})[entry.sample_index]
        may_win = rules.cut != "lose" or entry.finish_reason == "stop"
        found.append(Candidate(entry, reward, value, may_win, (deviations or {}).get(entry.sample_index)))
    return found


def taking_part(found: Sequence[Candidate], rules: Pairs) -> list[Candidate]:
    """Return the candidates that the recipe's `cut: drop` leaves."""
    return [entry for entry in found if rules.cut != "drop" or entry.sample.finish_reason == "stop"]


def ranked_inputs(iteration: int, *, log_ratios: bool, scope: Literal["all", "shard"] = "all") -> tuple[Input, ...]:
    """Return the inputs of a stage that reads an iteration's candidates, or those of one shard of prompts."""
    inputs = [
        Input(iteration_stage(iteration, "samples"), "samples.parquet", scope),
        Input(iteration_stage(iteration, "rewards"), "scores.parquet", scope),
    ]
    if log_ratios:
        inputs.append(Input(iteration_stage(iteration, "log-ratios"), LOG_RATIOS, scope))
    return tuple(inputs)


def read_candidates(context: StageContext, iteration: int) -> Iterator[tuple[str, PromptResponses]]:
    """Yield each prompt id with what an iteration has of it, from the inputs that `ranked_inputs` declares.

    All responses to a prompt lie in one shard, and one shard is held at a time.
    """
    place, rules = iteration_row(iteration), context.recipe.pairs
    files = [
        context.inputs(f"{place}/samples", "samples.parquet"),
        context.inputs(f"{place}/rewards", "scores.parquet"),
    ]
    if rules.kl_weight:
        files.append(context.inputs(f"{place}/log-ratios", LOG_RATIOS))
    for shard in zip(*files, strict=True):
        yield from _candidates_of(rules, *shard)


def _candidates_of(
    rules: Pairs, samples: Path, scores: Path, log_ratios: Path | None = None
) -> Iterator[tuple[str, PromptResponses]]:
    responses: dict[str, list[Sample]] = {}
    for entry in Sample.read(samples):
        responses.setdefault(entry.prompt_id, []).append(entry)
    rewards: dict[str, dict[int, float]] = {}
    deviations: dict[str, dict[int, float | None]] = {}
    for score in Score.read(scores):
        rewards.setdefault(score.prompt_id, {})[score.sample_index] = score.reward
        deviations.setdefault(score.prompt_id, {})[score.sample_index] = score.deviation
    ratios: dict[str, dict[int, float]] = {}
    for row in LogRatio.read(log_ratios) if log_ratios is not None else ():
        ratios.setdefault(row.prompt_id, {})[row.sample_index] = row.logp_policy - row.logp_base
    for prompt_id, those in responses.items():
        found = candidates(those, rewards.get(prompt_id, {}), rules, ratios.get(prompt_id), deviations.get(prompt_id))
        yield prompt_id, drawn(those, found)


class LogRatioParameters(Parameters):
    """Say which responses are compared under which policy and the base."""

    samples: str
    policy: str


def declare_log_ratios(iteration: int, policy: str, shards: int) -> Stage:
    """Declare the log-ratios of an iteration's responses between the policy that drew them and the base."""
    samples = iteration_stage(iteration, "samples")
    return Stage(
        name=iteration_stage(iteration, "log-ratios"),
        identity="log-ratios/1",
        work="gshf_release.preference.ranking:write_log_ratios",
        kind="log-ratios",
        inputs=(Input(samples, "samples.parquet", scope="shard"), Input(policy, "model"), Input("base", "model")),
        outputs=(LOG_RATIOS,),
        parameters=LogRatioParameters(samples=samples, policy=policy).as_json(),
        shards=shards,
        distributed=True,
    )


def write_log_ratios(context: StageContext) -> None:
    """Write this shard's log-probabilities under the policy and the base, in FP32."""
    join_processes(context.profile)
    of = context.parameters(LogRatioParameters)
    samples = [row for row in Sample.read(context.input(of.samples, "samples.parquet")) if row.answered]
    sequences = [Tokens(entry.prompt_ids, entry.completion_ids) for entry in samples]
    profile = context.profile
    own, base = (
        completion_logps(
            load_model(context.input(stage, "model"), "fp32", device_of(profile.device)),
            sequences,
            batch=profile.scoring_batch,
            workers=profile.concurrent_batches,
        )
        for stage in (of.policy, "base")
    )
    if launch.rank() > 0:
        return
    LogRatio.write(
        (LogRatio(entry.prompt_id, entry.sample_index, *pair) for entry, *pair in zip(samples, own, base, strict=True)),
        context.output(LOG_RATIOS),
    )


class Drops:
    """Counts what gave nothing, for `dropped.json`."""

    def __init__(self, reasons: Sequence[str]) -> None:
        """Start at zero.

        Args:
            reasons: Every reason there is, so that the file shows zeros too.
        """
        self.prompts = 0
        self.dropped = dict.fromkeys(reasons, 0)
        self.responses: dict[str, int] = dict.fromkeys(get_args(Unread), 0)

    def add(self, found: PromptResponses, reason: str | None) -> None:
        """Count a prompt: what there was of it, and why it gave nothing, or None where it gave something."""
        self.prompts += 1
        if reason is not None:
            self.dropped[reason] += 1
        if found.unread is not None:
            self.responses[found.unread] += found.missing

    def document(self) -> dict[str, Any]:
        """Return what `dropped.json` holds: prompts, those that gave nothing by reason, and responses that were not read."""
        return {"prompts": self.prompts, "dropped": self.dropped, "responses": self.responses}


def drop_cells(document: Mapping[str, Any], **place: str) -> list[Cell]:
    """Return the counts of a `dropped.json` that are not zero."""
    cells = [
        Cell(metric=f"dropped: {reason}", value=count, n=document["prompts"], **place)
        for reason, count in document["dropped"].items()
        if count
    ]
    return cells + [
        Cell(metric=f"responses without a reward: {reason}", value=count, **place)
        for reason, count in document.get("responses", {}).items()
        if count
    ]


def length(sample: Sample, unit: str) -> int:
    """Return the length of a response in characters of its text, or in tokens with the EOS."""
    return len(sample.text) if unit == "characters" else len(sample.completion_ids)


def finite(found: Sequence[Candidate]) -> bool:
    """Return whether every reward is a number."""
    return all(math.isfinite(entry.value) for entry in found)


def best(found: Sequence[Candidate]) -> Candidate:
    """Return the highest; of equals the one with the lowest sample index."""
    return max(found, key=lambda entry: (entry.rank, -entry.index))


def worst(found: Sequence[Candidate]) -> Candidate:
    """Return the lowest; of equals the one with the lowest sample index."""
    return min(found, key=lambda entry: (entry.rank, entry.index))
