"""The untrained base at other temperatures: what sharpening alone gains, at its own divergence from the base at T=1.

It belongs beside every frontier of reward over KL: a policy that is no better than the base at a lower temperature, at the same
divergence, has learned nothing that a decoding parameter does not give.
"""

from __future__ import annotations

from typing import Any

from gshf_release.data import statistics
from gshf_release.data.records import Sample, Trace
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics.row_metrics import score_table
from gshf_release.models.checkpoints import device_of, inference_precision, load_model
from gshf_release.models.logprobs import KL_TO_BASE, traces
from gshf_release.recipe import Recipe
from gshf_release.rewards.settings import SCORERS
from gshf_release.rewards.stages import declare_scores_of_both
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

IDENTITY = "measure-temperatures/1"
PLACE = "base/temperatures"
ROW = "base, T="
"""Begins the rows of its cells, before the temperature."""
PLAIN = "T=1"
"""The base's own distribution, which the others are compared with."""


class TemperatureParameters(Parameters):
    """Say which plain answers the sharper ones are compared with."""

    plain: str
    """The stage prefix of the base's own evaluation, `base/test`."""
    plain_index: int
    """Which of those answers is the one at temperature 1."""


class TemperedModel:
    """A model whose next-token distribution is that of another at a temperature."""

    def __init__(self, model: Any, temperature: float) -> None:
        self.model, self.temperature, self.device = model, temperature, model.device

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's output with its logits divided by the temperature."""
        output = self.model(**inputs)
        output.logits = output.logits.float() / self.temperature
        return output


def declare_temperatures(recipe: Recipe, prompts: str, count: int, plain: str, plain_index: int) -> list[Stage]:
    """Declare the base's answers at each of `evaluation.temperatures`, their scores and their divergence.

    Args:
        recipe: The recipe.
        prompts: The stage of the test prompts.
        count: Their number.
        plain: The stage prefix of the base's own evaluation.
        plain_index: Which of its answers is the one at temperature 1.
    """
    limit = recipe.evaluation.max_new_tokens
    answers = sampling.declare_samples(
        f"{PLACE}/answers",
        policy="base",
        prompts=prompts,
        count=count,
        decodings=[Decoding(temperature, limit) for temperature in recipe.evaluation.temperatures],
        purpose="temperatures",
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
    scores = declare_scores_of_both(recipe, PLACE, samples=answers, prompts=prompts, base_answers=f"{plain}/answers")
    measure = Stage(
        name=f"{PLACE}/measure",
        identity=IDENTITY,
        work="gshf_release.evaluation.temperature_curve:measure_temperatures",
        kind="measuring",
        inputs=(
            Input("base", "model"),
            Input(answers.name, sampling.FILE),
            *(Input(stage.name, "scores.parquet") for stage in scores),
            *(Input(f"{plain}/{scorer}-scores", "scores.parquet") for scorer in SCORERS),
        ),
        outputs=("traces.parquet",),
        parameters=TemperatureParameters(plain=plain, plain_index=plain_index).as_json(),
        numbers="gshf_release.evaluation.temperature_curve:temperature_cells",
    )
    return [answers, *scores, measure]


def measure_temperatures(context: StageContext) -> None:
    """Write the token statistics of every answer under the sharpened base and under the base itself."""
    profile = context.profile
    device = device_of(profile.device)
    base = load_model(context.input("base", "model"), inference_precision(profile.inference_precision, device), device)
    rows = []
    samples = [one for one in Sample.read(*context.inputs(f"{PLACE}/answers", sampling.FILE)) if one.answered]
    for temperature in dict.fromkeys(sample.temperature for sample in samples):
        chosen = [sample for sample in samples if sample.temperature == temperature]
        sharp = TemperedModel(base, temperature)
        values = traces(sharp, base, sharp, chosen, batch=profile.scoring_batch, workers=profile.concurrent_batches)
        rows += [
            Trace(sample.prompt_id, sample.sample_index, len(sample.completion_ids), *value)
            for sample, value in zip(chosen, values, strict=True)
        ]
    Trace.write(rows, context.output("traces.parquet"))


def temperature_cells(context: StageContext) -> list[Cell]:
    """Return, for each temperature, gain and divergence over the base at temperature 1, and length."""
    of = context.parameters(TemperatureParameters)
    answers = [one for one in Sample.read(*context.inputs(f"{PLACE}/answers", sampling.FILE)) if one.answered]
    found = {(row.prompt_id, row.sample_index): row for row in Trace.read(context.output("traces.parquet"))}
    cells = []
    for decoding in dict.fromkeys(answer.decoding for answer in answers):
        keys = [(answer.prompt_id, answer.sample_index) for answer in answers if answer.decoding == decoding]
        artefact = context.run.relative(context.output("traces.parquet"))
        place = {"table": "test", "row": f"{ROW}{decoding.removeprefix('T=')}", "decoding": PLAIN, "artefact": artefact}
        for scorer in SCORERS:
            own = score_table(context.inputs(f"{PLACE}/{scorer}-scores", "scores.parquet"))
            base = score_table(context.inputs(f"{of.plain}/{scorer}-scores", "scores.parquet"))
            gain = statistics.paired_difference(
                [own[key] for key in keys], [base[prompt, of.plain_index] for prompt, _ in keys]
            )
            cells.append(cell(gain, metric="gain over base", judge=scorer, baseline="base", **place))
        divergence = statistics.mean([found[key].kl for key in keys])
        note = "exact next-token KL summed along the answers"
        cells.append(cell(divergence, metric=KL_TO_BASE, unit="nats per response", note=note, **place))
        tokens = statistics.mean([float(found[key].tokens) for key in keys])
        cells.append(cell(tokens, metric="length", unit="tokens", **place))
    return cells
