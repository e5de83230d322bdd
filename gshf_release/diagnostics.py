"""What an iteration did to the policy, on validation prompts that are never trained on.

Answers are decoded greedily, at temperature 0.7 and at 1.0. Rewards are compared with the base's on the same prompts, so
standard errors are paired. Entropy and KL need samples of the policy itself, so they are measured at temperature 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gshf_release import statistics
from gshf_release.checkpoints import device_of, inference_precision, load_model
from gshf_release.logprobs import traces
from gshf_release.records import Sample, Score, Trace
from gshf_release.results import Cell, cell
from gshf_release.rewards.stages import declare_scores
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

PROMPTS = "prompts/validation"
DECODINGS = (0.0, 0.7, 1.0)
KL_ESTIMATOR = "Rao-Blackwellised: exact next-token KL summed along samples at T=1"


def declare(
    row: str, policy: str, *, count: int, max_new_tokens: int, prompts_per_shard: int, opponents: str | None = None
) -> list[Stage]:
    """Declare the validation of one policy: answers, rewards, token statistics.

    Args:
        row: `base` or `iteration-t`.
        policy: The stage that puts out its `model`.
        count: Validation prompts.
        max_new_tokens: As in training.
        prompts_per_shard: The unit of resumption.
        opponents: For a pairwise reward, the stage of the base's answers.
    """
    answers = sampling.declare(
        f"{row}/validation/answers",
        policy=policy,
        prompts=PROMPTS,
        count=count,
        decodings=[Decoding(temperature, max_new_tokens) for temperature in DECODINGS],
        purpose="validation",
        prompts_per_shard=prompts_per_shard,
    )
    scores = declare_scores(
        f"{row}/validation/scores", samples=answers, prompts=PROMPTS, scorer="reward", opponents=opponents
    )
    inputs = [Input("base", "model"), Input(answers.name, sampling.FILE), Input(scores.name, "scores.parquet")]
    if row != "base":
        inputs += [Input(policy, "model"), Input("base/validation/scores", "scores.parquet")]
    measure = Stage(
        name=f"{row}/validation/measure",
        work="gshf_release.diagnostics:measure",
        inputs=tuple(inputs),
        outputs=("traces.parquet",),
        parameters={"row": row, "policy": policy},
        numbers="gshf_release.diagnostics:numbers",
    )
    return [answers, scores, measure]


def measure(context: StageContext) -> None:
    """Write the token statistics of the policy's answers at temperature 1.0."""
    row, policy = context.parameter("row"), context.parameter("policy")
    device = device_of(context.profile.device)
    precision = inference_precision(context.profile.inference_precision, device)
    exact = load_model(context.input(policy, "model"), "fp32", device)
    rounded = load_model(context.input(policy, "model"), precision, device)
    base = rounded if row == "base" else load_model(context.input("base", "model"), precision, device)
    answers = Sample.read(*context.inputs(f"{row}/validation/answers", sampling.FILE))
    explored = [sample for sample in answers if sample.temperature == 1.0]
    profile = context.profile
    batch, workers = profile.scoring_batch, profile.concurrent_batches
    values = traces(rounded, base, exact, explored, batch=batch, workers=workers)
    Trace.write(
        (
            Trace(sample.prompt_id, sample.sample_index, len(sample.completion_ids), *value)
            for sample, value in zip(explored, values, strict=True)
        ),
        context.output("traces.parquet"),
    )


def numbers(context: StageContext) -> list[Cell]:
    """Return the policy's validation cells."""
    row = context.parameter("row")
    answers = Sample.read(*context.inputs(f"{row}/validation/answers", sampling.FILE))
    own, base = (
        score_table(context.inputs(f"{source}/validation/scores", "scores.parquet")) for source in (row, "base")
    )
    place = {"table": "validation", "row": row}
    cells = reward_cells(answers, own, base, judge="reward", artefact=f"{row}/validation/scores", **place)
    cells += length_cells(answers, artefact=f"{row}/validation/answers", **place)
    rows = Trace.read(context.output("traces.parquet"))
    place["artefact"] = context.run.relative(context.output("traces.parquet"))
    place["decoding"] = "T=1"
    per_token = [trace.entropy / trace.tokens for trace in rows]
    cells.append(cell(statistics.mean(per_token), metric="entropy", unit="nats per token", **place))
    kl = statistics.mean([trace.kl for trace in rows])
    cells.append(cell(kl, metric="KL to base", unit="nats per response", note=KL_ESTIMATOR, **place))
    ratio = statistics.mean([trace.logp_policy - trace.logp_base for trace in rows])
    note = "k1: mean log-ratio of the sampled responses"
    cells.append(cell(ratio, metric="KL to base (k1)", unit="nats per response", note=note, **place))
    rounding = statistics.mean([trace.kl_rounding for trace in rows])
    cells.append(cell(rounding, metric="KL(FP32 || BF16)", unit="nats per response", **place))
    return cells


def score_table(paths: Sequence[Path]) -> dict[tuple[str, int], float]:
    """Return `{(prompt id, sample index): score}` of score files."""
    return {(score.prompt_id, score.sample_index): score.reward for score in Score.read(*paths)}


def reward_cells(
    answers: Sequence[Sample],
    own: Mapping[tuple[str, int], float],
    base: Mapping[tuple[str, int], float],
    *,
    judge: str,
    table: str,
    row: str,
    artefact: str,
) -> list[Cell]:
    """Return the mean score per decoding and its paired difference from the base at the same decoding.

    `own` and `base` map (prompt id, sample index) to a score.
    """
    cells = []
    for decoding in dict.fromkeys(answer.decoding for answer in answers):
        keys = [(answer.prompt_id, answer.sample_index) for answer in answers if answer.decoding == decoding]
        place = {"table": table, "row": row, "decoding": decoding, "judge": judge, "artefact": artefact}
        cells.append(cell(statistics.mean([own[key] for key in keys]), metric="score", **place))
        if row != "base" and all(key in base for key in keys):
            gain = statistics.paired_difference([own[key] for key in keys], [base[key] for key in keys])
            cells.append(cell(gain, metric="gain over base", baseline="base", **place))
    return cells


def length_cells(answers: Sequence[Sample], *, table: str, row: str, artefact: str) -> list[Cell]:
    """Return mean and median length in tokens and the share of responses cut by the limit, per decoding."""
    cells = []
    for decoding in dict.fromkeys(answer.decoding for answer in answers):
        chosen = [answer for answer in answers if answer.decoding == decoding]
        tokens = [len(answer.completion_ids) for answer in chosen]
        cut = [answer.finish_reason == "length" for answer in chosen]
        place = {"table": table, "row": row, "decoding": decoding, "artefact": artefact}
        cells.append(cell(statistics.mean(tokens), metric="length", unit="tokens", **place))
        median = float(np.median(tokens))
        cells.append(Cell(metric="median length", value=median, n=len(tokens), unit="tokens", **place))
        cells.append(cell(statistics.win_rate(cut), metric="cut", unit="%", **place))
    return cells
