"""Log-probabilities of the pairs under the reference policy, computed once, by all training processes together."""

from __future__ import annotations

import math

from gshf_release.data.records import Pair, ReferenceLogProbability
from gshf_release.errors import EngineError
from gshf_release.models.batching import join_processes
from gshf_release.models.checkpoints import device_of, load_model
from gshf_release.models.logprobs import Tokens, completion_logps
from gshf_release.models.lora import frozen_precision
from gshf_release.preference.pairs import choices
from gshf_release.preference.ranking import ranked_inputs
from gshf_release.run import launch
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage, iteration_stage

FILE = "reference.parquet"
AHEAD = "reference-ahead"


class ReferenceParameters(Parameters):
    """Say whose pairs are measured under which policy."""

    source: str
    """`iteration-1` or `offline`."""
    reference: str
    """The stage of the policy."""
    frozen: bool = False
    """Whether the trained policy is an adapter on it."""


class AheadParameters(ReferenceParameters):
    """Say of which iteration the pairs are chosen and measured."""

    iteration: int


def declare_reference_logprobs(source: str, reference: str, *, frozen: bool = False) -> Stage:
    """Declare the reference log-probabilities of the pairs in `<source>/pairs` under the `model` of stage `reference`.

    `frozen` says that the policy is an adapter on it: it is then held in the dtype that it has under the adapter.
    """
    return Stage(
        name=f"{source}/reference",
        identity="reference-logprobs/1",
        work="gshf_release.optimization.reference_logprobs:write_reference_logprobs",
        kind="reference",
        inputs=(Input(f"{source}/pairs", "pairs.parquet"), Input(reference, "model")),
        outputs=(FILE,),
        keys=("training.precision",),
        parameters=ReferenceParameters(source=source, reference=reference, frozen=frozen).as_json(),
        distributed=True,
    )


def declare_reference_logprobs_ahead(iteration: int, of: Stage, *, log_ratios: bool, shards: int) -> Stage:
    """Declare what `of`, the reference log-probabilities of an iteration, can have computed while responses still come.

    The pair of a prompt needs the responses to that prompt alone, which one shard of samples holds. So shard k chooses its own
    pairs, and computes their log-probabilities, as soon as shard k of the rewards is finished.
    """
    (model,) = (item for item in of.inputs if item.file == "model")
    known = of.typed(ReferenceParameters)
    return Stage(
        name=iteration_stage(iteration, AHEAD),
        identity="reference-logprobs-ahead/1",
        work="gshf_release.optimization.reference_logprobs:write_reference_logprobs_ahead",
        kind="reference",
        inputs=(*ranked_inputs(iteration, log_ratios=log_ratios, scope="shard"), model),
        outputs=("pairs.parquet", FILE),
        keys=("seed", "pairs", *of.keys),
        parameters=AheadParameters(**known.model_dump(), iteration=iteration).as_json(),
        shards=shards,
    )


def is_ahead(stage: Stage) -> bool:
    """Return whether a stage is one that `declare_ahead` declares."""
    return stage.name.endswith(f"/{AHEAD}")


def write_reference_logprobs(context: StageContext) -> None:
    """Write both completions' summed log-probabilities, in the arithmetic that training uses.

    Raises:
        EngineError: One of them is not a number.
        RunError: Another number of processes came together than the profile asks for.
    """
    join_processes(context.profile)
    of = context.parameters(ReferenceParameters)
    pairs = Pair.read(context.input(f"{of.source}/pairs", "pairs.parquet"))
    known = _known(context, of, pairs)
    computed = iter(_rows(context, of, [pair for pair, row in zip(pairs, known, strict=True) if row is None]))
    rows = [next(computed) if row is None else row for row in known]
    if launch.rank() == 0:
        ReferenceLogProbability.write(rows, context.output(FILE))


def write_reference_logprobs_ahead(context: StageContext) -> None:
    """Write this shard's pairs and their log-probabilities.

    Raises:
        EngineError: One of them is not a number.
    """
    of = context.parameters(AheadParameters)
    pairs = [choice.pair for _, choice in choices(context, of.iteration) if choice.pair is not None]
    Pair.write(pairs, context.output("pairs.parquet"))
    ReferenceLogProbability.write(_rows(context, of, pairs), context.output(FILE))


def _known(context: StageContext, of: ReferenceParameters, pairs: list[Pair]) -> list[ReferenceLogProbability | None]:
    """Return for each pair what was computed ahead of this very pair under this very reference, or None."""
    stage = f"{of.source}/{AHEAD}"
    digest = context.input_sha256(of.reference, "model")
    found = {}
    for chosen, computed in zip(context.spared(stage, "pairs.parquet"), context.spared(stage, FILE), strict=True):
        for pair, row in zip(Pair.read(chosen), ReferenceLogProbability.read(computed), strict=True):
            if row.reference_sha256 == digest:
                found[pair.prompt_id] = (pair, row)
    return [found[pair.prompt_id][1] if found.get(pair.prompt_id, (None,))[0] == pair else None for pair in pairs]


def _rows(context: StageContext, of: ReferenceParameters, pairs: list[Pair]) -> list[ReferenceLogProbability]:
    """Return the log-probabilities of pairs under the reference, computed by all processes together.

    Raises:
        EngineError: One of them is not a number.
    """
    if not pairs:
        return []
    precision = frozen_precision(context.recipe.training) if of.frozen else "fp32"
    folder = context.input(of.reference, "model")
    model = context.resources.get(folder, lambda: load_model(folder, precision, device_of(context.profile.device)))
    sequences = [Tokens(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    autocast = context.recipe.training.precision == "bf16"
    batch, workers = context.profile.scoring_batch, context.profile.concurrent_batches
    values = completion_logps(model, sequences, batch=batch, workers=workers, autocast=autocast)
    digest = context.input_sha256(of.reference, "model")
    rows = [
        ReferenceLogProbability(pair.prompt_id, values[2 * number], values[2 * number + 1], digest)
        for number, pair in enumerate(pairs)
    ]
    for row in rows:
        if not (math.isfinite(row.chosen_logp) and math.isfinite(row.rejected_logp)):
            raise EngineError(
                f"The reference gives a response to prompt {row.prompt_id} the log-probability NaN or infinity."
            )
    return rows
