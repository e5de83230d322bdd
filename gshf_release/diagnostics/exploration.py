"""What an iteration was trained from: the rewards of the sampled responses by temperature, and how far length decides them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gshf_release import statistics
from gshf_release.diagnostics import texts
from gshf_release.diagnostics.cells import DISTINCT, Scores, by_decoding, score_table
from gshf_release.records import Pair, Sample, Spread
from gshf_release.results import Cell, cell
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage

FILE = "spread.parquet"
LENGTH_REWARD = "Pearson(length, reward) within a prompt"


def declare(iteration: int, *, pairs: bool) -> Stage:
    """Declare the look at one iteration's samples, rewards and, where it has them, pairs."""
    place = f"iteration-{iteration}"
    inputs = [Input(f"{place}/samples", "samples.parquet"), Input(f"{place}/rewards", "scores.parquet")]
    if pairs:
        inputs.append(Input(f"{place}/pairs", "pairs.parquet"))
    return Stage(
        name=f"{place}/exploration",
        work="gshf_release.diagnostics.exploration:describe",
        inputs=tuple(inputs),
        outputs=(FILE,),
        parameters={"iteration": iteration, "pairs": pairs},
        numbers="gshf_release.diagnostics.exploration:numbers",
    )


def describe(context: StageContext) -> None:
    """Write one row per prompt on how the responses to it differ."""
    samples, rewards = _read(context)
    by_prompt: dict[str, list[Sample]] = {}
    for sample in samples:
        by_prompt.setdefault(sample.prompt_id, []).append(sample)
    Spread.write((spread(responses, rewards) for responses in by_prompt.values()), context.output(FILE))


def spread(responses: Sequence[Sample], rewards: Scores) -> Spread:
    """Return the row of the responses to one prompt."""
    lengths = [float(len(response.completion_ids)) for response in responses]
    scores = [rewards[response.prompt_id, response.sample_index] for response in responses]
    return Spread(
        prompt_id=responses[0].prompt_id,
        responses=len(responses),
        repeated=sum(texts.repeated([response.text for response in responses])),
        length_reward=statistics.pearson(lengths, scores),
    )


def numbers(context: StageContext) -> list[Cell]:
    """Return the cells of the iteration's samples and of the lengths in its pairs."""
    iteration = context.parameter("iteration")
    samples, rewards = _read(context)
    place = {"table": "training", "row": f"iteration-{iteration}"}
    cells = sample_cells(samples, rewards, artefact=f"iteration-{iteration}/samples", **place)
    path = context.output(FILE)
    cells += spread_cells(Spread.read(path), artefact=context.run.relative(path), **place)
    if not context.parameter("pairs"):
        return cells
    pairs = Pair.read(context.input(f"iteration-{iteration}/pairs", "pairs.parquet"))
    return cells + pair_cells(pairs, artefact=f"iteration-{iteration}/pairs/pairs.parquet", **place)


def sample_cells(samples: Sequence[Sample], rewards: Scores, **place: str) -> list[Cell]:
    """Return reward, length, share cut and distinct-n of the samples by temperature; errors are clustered by prompt."""
    cells = []
    for decoding, chosen in by_decoding(samples):
        prompts = [sample.prompt_id for sample in chosen]
        scores = [rewards[sample.prompt_id, sample.sample_index] for sample in chosen]
        tokens = [float(len(sample.completion_ids)) for sample in chosen]
        cut = [float(sample.finish_reason == "length") for sample in chosen]
        found = [sample.text for sample in chosen]
        reward, length = statistics.clustered_mean(scores, prompts), statistics.clustered_mean(tokens, prompts)
        share = statistics.percent(statistics.clustered_mean(cut, prompts))
        cells.append(cell(reward, metric="reward of samples", decoding=decoding, judge="reward", **place))
        cells.append(cell(length, metric="length of samples", decoding=decoding, unit="tokens", **place))
        cells.append(cell(share, metric="samples cut", decoding=decoding, unit="%", **place))
        for n in DISTINCT:
            value = texts.distinct(found, n)
            metric = f"distinct-{n} of samples"
            cells.append(Cell(metric=metric, value=value, n=len(found), decoding=decoding, unit="share", **place))
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


def pair_cells(pairs: Sequence[Pair], **place: str) -> list[Cell]:
    """Return how often length alone, taking the longer response, would choose as the reward did; equal lengths count half."""
    if not pairs:
        return []
    right = [
        0.5 if len(pair.chosen_ids) == len(pair.rejected_ids) else float(len(pair.chosen_ids) > len(pair.rejected_ids))
        for pair in pairs
    ]
    return [cell(statistics.win_rate(right), metric="length-only accuracy of pairs", unit="%", **place)]


def _read(context: StageContext) -> tuple[list[Sample], dict[tuple[str, int], float]]:
    """Return the samples that have a finite reward, and the rewards; the pairs count the others as dropped."""
    place = f"iteration-{context.parameter('iteration')}"
    rewards = score_table(context.inputs(f"{place}/rewards", "scores.parquet"))
    samples = Sample.read(*context.inputs(f"{place}/samples", "samples.parquet"))
    return [s for s in samples if math.isfinite(rewards.get((s.prompt_id, s.sample_index), math.nan))], rewards
