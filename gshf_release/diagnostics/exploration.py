"""Describe what an iteration was trained from: rewards of the samples by temperature, and how far length decides them."""

from __future__ import annotations

import itertools
import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gshf_release.data import statistics
from gshf_release.data.records import Pair, Sample, Spread
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics import text_statistics
from gshf_release.diagnostics.row_metrics import DISTINCT, Scores, score_table
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage, iteration_row, iteration_stage

IDENTITY = "describe-exploration/1"
FILE = "spread.parquet"
LENGTH_REWARD = "Pearson(length, reward) within a prompt"


class ExplorationParameters(Parameters):
    """Say which iteration is described, and whether it has pairs."""

    iteration: int
    pairs: bool


class Shard(NamedTuple):
    """All responses to some of the prompts."""

    samples: list[Sample]
    rewards: Scores


def declare_exploration(iteration: int, *, pairs: bool) -> Stage:
    """Declare the look at one iteration's samples, rewards and, where it has them, pairs."""
    place = iteration_row(iteration)
    inputs = [Input(f"{place}/samples", "samples.parquet"), Input(f"{place}/rewards", "scores.parquet")]
    if pairs:
        inputs.append(Input(f"{place}/pairs", "pairs.parquet"))
    return Stage(
        name=f"{place}/exploration",
        identity=IDENTITY,
        work="gshf_release.diagnostics.exploration:write_exploration",
        kind="other",
        inputs=tuple(inputs),
        outputs=(FILE,),
        parameters=ExplorationParameters(iteration=iteration, pairs=pairs).as_json(),
        numbers="gshf_release.diagnostics.exploration:exploration_cells",
    )


def write_exploration(context: StageContext) -> None:
    """Write one row per prompt on how the responses to it differ."""
    Spread.write(itertools.chain.from_iterable(map(_spreads, _shards(context))), context.output(FILE))


def _spreads(shard: Shard) -> Iterator[Spread]:
    by_prompt: dict[str, list[Sample]] = {}
    for sample in shard.samples:
        by_prompt.setdefault(sample.prompt_id, []).append(sample)
    for responses in by_prompt.values():
        yield spread(responses, shard.rewards)


def spread(responses: Sequence[Sample], rewards: Scores) -> Spread:
    """Return the row of the responses to one prompt."""
    lengths = [float(len(response.completion_ids)) for response in responses]
    scores = [rewards[response.prompt_id, response.sample_index] for response in responses]
    return Spread(
        prompt_id=responses[0].prompt_id,
        responses=len(responses),
        repeated=sum(text_statistics.repeated([response.text for response in responses])),
        length_reward=statistics.pearson(lengths, scores),
    )


def exploration_cells(context: StageContext) -> list[Cell]:
    """Return the cells of the iteration's samples and of the lengths in its pairs."""
    of = context.parameters(ExplorationParameters)
    place = {"table": "training", "row": iteration_row(of.iteration)}
    cells = sample_cells(_shards(context), artefact=iteration_stage(of.iteration, "samples"), **place)
    path = context.output(FILE)
    cells += spread_cells(Spread.read(path), artefact=context.run.relative(path), **place)
    if not of.pairs:
        return cells
    pairs = Pair.scan(context.input(iteration_stage(of.iteration, "pairs"), "pairs.parquet"))
    return cells + pair_cells(pairs, artefact=iteration_stage(of.iteration, "pairs/pairs.parquet"), **place)


COMPARED = 10_000
"""assumption: distinct-n compares the first so many responses of a decoding. It falls with the amount of text, and its memory
grows with it."""


class _DecodingTally:
    """Records what the samples of one decoding come to."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.rewards, self.tokens, self.cut = array("d"), array("d"), array("d")
        self.variety = text_statistics.Variety(*DISTINCT)
        self.compared = 0

    def add(self, sample: Sample, reward: float) -> None:
        self.prompts.append(sys.intern(sample.prompt_id))
        self.rewards.append(reward)
        self.tokens.append(float(len(sample.completion_ids)))
        self.cut.append(float(sample.finish_reason == "length"))
        if self.compared < COMPARED:
            self.variety.add(sample.text)
            self.compared += 1


def sample_cells(shards: Iterable[Shard], **place: str) -> list[Cell]:
    """Return reward, length, share cut and distinct-n of the samples by temperature; errors are clustered by prompt."""
    seen: dict[str, _DecodingTally] = {}
    for samples, rewards in shards:
        for sample in samples:
            seen.setdefault(sample.decoding, _DecodingTally()).add(
                sample, rewards[sample.prompt_id, sample.sample_index]
            )
    cells = []
    for decoding, found in seen.items():
        reward = statistics.clustered_mean(found.rewards, found.prompts)
        length = statistics.clustered_mean(found.tokens, found.prompts)
        share = statistics.percent(statistics.clustered_mean(found.cut, found.prompts))
        cells.append(cell(reward, metric="reward of samples", decoding=decoding, judge="reward", **place))
        cells.append(cell(length, metric="length of samples", decoding=decoding, unit="tokens", **place))
        cells.append(cell(share, metric="samples cut", decoding=decoding, unit="%", **place))
        for n in DISTINCT:
            value, metric = found.variety.distinct(n), f"distinct-{n} of samples"
            cells.append(Cell(metric=metric, value=value, n=found.compared, decoding=decoding, unit="share", **place))
    return cells


def spread_cells(rows: Sequence[Spread], **place: str) -> list[Cell]:
    """Return the share of repeated responses, and Pearson(length, reward) within a prompt, averaged over prompts.

    Averaging within prompts keeps out that some questions want longer answers and are also answered better. Prompts whose
    responses all have one length or one reward have no correlation and are left out.
    """
    if not rows:
        return []
    repeated = [row.repeated / row.responses for row in rows]
    cells = [cell(statistics.win_rate(repeated), metric="repeated samples", unit="%", **place)]
    correlations = [row.length_reward for row in rows if row.length_reward is not None]
    if not correlations:
        note = "no prompt has responses that differ in both length and reward"
        return [*cells, Cell(metric=LENGTH_REWARD, value=None, n=0, judge="reward", note=note, **place)]
    return [*cells, cell(statistics.mean(correlations), metric=LENGTH_REWARD, judge="reward", **place)]


def pair_cells(pairs: Iterable[Pair], **place: str) -> list[Cell]:
    """Return how often length alone, taking the longer response, would choose as the reward did; equal lengths count half."""
    right = [
        0.5 if len(pair.chosen_ids) == len(pair.rejected_ids) else float(len(pair.chosen_ids) > len(pair.rejected_ids))
        for pair in pairs
    ]
    if not right:
        return []
    return [cell(statistics.win_rate(right), metric="length-only accuracy of pairs", unit="%", **place)]


def _shards(context: StageContext) -> Iterator[Shard]:
    """Yield the samples that have a finite reward; the pairs count the others as dropped."""
    place = iteration_row(context.parameters(ExplorationParameters).iteration)
    files = context.inputs(f"{place}/samples", "samples.parquet"), context.inputs(f"{place}/rewards", "scores.parquet")
    for drawn, scored in zip(*files, strict=True):
        rewards = score_table([scored])
        finite = (s for s in Sample.read(drawn) if math.isfinite(rewards.get((s.prompt_id, s.sample_index), math.nan)))
        yield Shard(list(finite), rewards)
