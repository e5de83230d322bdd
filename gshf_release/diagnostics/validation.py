"""Measure an iteration on validation prompts that are never trained on.

Answers are decoded greedily, at temperature 0.7 and at 1.0. Rewards are compared with the base's on the same prompts, so
standard errors are paired. Entropy and KL need samples of the policy itself, so they are measured at temperature 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gshf_release.data import statistics
from gshf_release.data.records import Sample, Trace
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics.row_metrics import length_cells, reward_cells, score_table, text_cells
from gshf_release.models import lora
from gshf_release.models.checkpoints import device_of, inference_precision, load_model
from gshf_release.models.logprobs import KL_TO_BASE, OffloadedModel, best_of_n_kl, traces
from gshf_release.recipe import Recipe
from gshf_release.rewards.settings import opponents_of
from gshf_release.rewards.stages import declare_scores
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

IDENTITY = "measure-policy/2"
PROMPTS = "prompts/validation"
BOUND = "best-of-n KL bound"
DECODINGS = (0.0, 0.7, 1.0)
EXCEEDED = "EXCEEDED"
"""Stands in the note of a bound that the policy has passed."""
LIKELY = "log-probability under the base"
"""Metric: mean over responses; it falls where a policy leaves what the base would write."""
NOTES = {
    KL_TO_BASE: "exact next-token KL summed along samples at T=1",
    "KL to base (k1)": "mean log-ratio of the sampled responses",
    "KL to base (k3)": "mean over responses of the sum over tokens of r - 1 - log r, r = p_base / p_policy",
}


class ValidationParameters(Parameters):
    """Say which policy is measured."""

    row: str
    policy: str
    """The stage that puts it out."""
    adapter: bool = False
    """Whether that stage puts out an adapter too, of which the policy is the merger with the base."""


def declare_validation(recipe: Recipe, row: str, policy: str) -> list[Stage]:
    """Declare the validation of one policy: answers, rewards, token statistics.

    Args:
        recipe: The recipe.
        row: `base` or `iteration-t`.
        policy: The stage that puts out its `model`.
    """
    answers = sampling.declare_samples(
        f"{row}/validation/answers",
        policy=policy,
        prompts=PROMPTS,
        count=recipe.prompts.roles.validation,
        decodings=[Decoding(temperature, recipe.sampling.max_new_tokens) for temperature in DECODINGS],
        purpose="validation",
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
    scores = declare_scores(
        recipe,
        f"{row}/validation/scores",
        samples=answers,
        prompts=PROMPTS,
        scorer="reward",
        opponents=opponents_of(recipe, "reward", "base/validation/answers"),
    )
    inputs = [Input("base", "model"), Input(answers.name, sampling.FILE), Input(scores.name, "scores.parquet")]
    if row != "base":
        inputs += [Input(policy, "model"), Input("base/validation/scores", "scores.parquet")]
    under = recipe.training.adapter is not None and row != "base"
    if under:  # the policy's `model` is the base and its adapter, merged
        inputs.append(Input(policy, lora.FOLDER))
    measure = Stage(
        name=f"{row}/validation/measure",
        identity=IDENTITY,
        work="gshf_release.diagnostics.validation:measure_policy",
        kind="measuring",
        inputs=tuple(inputs),
        outputs=("traces.parquet",),
        keys=() if row == "base" else ("sampling.n", *(["training.precision"] if under else [])),
        parameters=ValidationParameters(row=row, policy=policy, adapter=under).as_json(),
        numbers="gshf_release.diagnostics.validation:validation_cells",
    )
    return [answers, scores, measure]


def measure_policy(context: StageContext) -> None:
    """Write the token statistics of the policy's answers at temperature 1.0."""
    of = context.parameters(ValidationParameters)
    device = device_of(context.profile.device)
    precision = inference_precision(context.profile.inference_precision, device)
    in_turn = context.profile.measure_in_turn
    place = "cpu" if in_turn else device
    exact = _trained(context, of, place)
    rounded = load_model(context.input(of.policy, "model"), precision, place)
    base = rounded if of.row == "base" else load_model(context.input("base", "model"), precision, place)
    if in_turn:
        exact, rounded, base = (OffloadedModel(model, device) for model in (exact, rounded, base))
    answers = Sample.read(*context.inputs(f"{of.row}/validation/answers", sampling.FILE))
    explored = [sample for sample in answers if sample.temperature == 1.0]
    profile = context.profile
    batch, workers = profile.scoring_batch, 1 if in_turn else profile.concurrent_batches
    values = traces(rounded, base, exact, explored, batch=batch, workers=workers)
    Trace.write(
        (
            Trace(sample.prompt_id, sample.sample_index, len(sample.completion_ids), *value)
            for sample, value in zip(explored, values, strict=True)
        ),
        context.output("traces.parquet"),
    )


def _trained(context: StageContext, of: ValidationParameters, device: str) -> Any:
    """Return the policy as it was trained, before its cast or merge to BF16."""
    if not of.adapter:
        return load_model(context.input(of.policy, "model"), "fp32", device)
    frozen = lora.frozen_precision(context.recipe.training)
    base = load_model(context.input("base", "model"), frozen, device)
    return lora.load(base, context.input(of.policy, lora.FOLDER)).to(device).eval()


def validation_cells(context: StageContext) -> list[Cell]:
    """Return the policy's validation cells."""
    row = context.parameters(ValidationParameters).row
    answers = Sample.read(*context.inputs(f"{row}/validation/answers", sampling.FILE))
    own, base = (
        score_table(context.inputs(f"{source}/validation/scores", "scores.parquet")) for source in (row, "base")
    )
    place = {"table": "validation", "row": row}
    cells = reward_cells(answers, own, base, judge="reward", artefact=f"{row}/validation/scores", **place)
    cells += length_cells(answers, artefact=f"{row}/validation/answers", **place)
    cells += text_cells(answers, artefact=f"{row}/validation/answers", **place)
    path = context.output("traces.parquet")
    place |= {"artefact": context.run.relative(path), "decoding": "T=1"}
    return cells + trace_cells(Trace.read(path), n=context.recipe.sampling.n, **place)


def trace_cells(rows: Sequence[Trace], *, n: int, row: str, **place: Any) -> list[Cell]:
    """Return entropy, KL to the base by three estimators, the yardstick for it, and what rounding to BF16 costs.

    Args:
        rows: Of responses sampled from the policy at temperature 1.
        n: Responses per prompt in training, of which the best is chosen.
        row: `base` or `iteration-t`.
        place: The other fields of the cells.
    """
    unit = "nats per response"
    divergences = {
        KL_TO_BASE: [trace.kl for trace in rows],
        "KL to base (k1)": [trace.logp_policy - trace.logp_base for trace in rows],
        "KL to base (k3)": [trace.kl_k3 for trace in rows],
    }
    per_token = statistics.mean([trace.entropy / trace.tokens for trace in rows])
    rounding = statistics.mean([trace.kl_rounding for trace in rows])
    likely = statistics.mean([trace.logp_base / trace.tokens for trace in rows])
    cells = [
        cell(per_token, metric="entropy", unit="nats per token", row=row, **place),
        cell(likely, metric=LIKELY, unit="nats per token", row=row, **place),
    ]
    cells += [
        cell(statistics.mean(values), metric=metric, unit=unit, note=NOTES[metric], row=row, **place)
        for metric, values in divergences.items()
    ]
    if row != "base":
        kl = statistics.mean(divergences[KL_TO_BASE]).value
        cells.append(_yardstick(kl, n, iteration=int(row.removeprefix("iteration-")), unit=unit, row=row, **place))
    cells.append(cell(rounding, metric="KL(FP32 || BF16)", unit=unit, row=row, **place))
    return cells


def _yardstick(kl: float, n: int, iteration: int, **place: Any) -> Cell:
    """Return the KL that best-of-n sampling could reach in as many rounds; the note warns if the policy has gone further."""
    bound = best_of_n_kl(n, rounds=iteration)
    rounds = f"best of {n}" + (f", {iteration} times over" if iteration > 1 else "")
    note = f"log N - (N - 1)/N for {rounds}"
    if kl > bound:
        note += f"; {EXCEEDED}: the KL to the base is {kl:.2f}"
    return Cell(metric=BOUND, value=bound, note=note, **place)
