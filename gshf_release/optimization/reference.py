"""Log-probabilities of the pairs under the reference policy, computed once, by all training processes together."""

from __future__ import annotations

import math

from gshf_release.adapters import frozen_precision
from gshf_release.batches import join_processes
from gshf_release.checkpoints import device_of, load_model
from gshf_release.errors import EngineError
from gshf_release.logprobs import Tokens, completion_logps
from gshf_release.records import Pair, ReferenceLogProbability
from gshf_release.run import launch
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage

FILE = "reference.parquet"


def declare(source: str, reference: str, *, frozen: bool = False) -> Stage:
    """Declare the reference log-probabilities of the pairs in `<source>/pairs` under the `model` of stage `reference`.

    `frozen` says that the policy is an adapter on it: it is then held in the dtype that it has under the adapter.
    """
    return Stage(
        name=f"{source}/reference",
        work="gshf_release.optimization.reference:compute",
        inputs=(Input(f"{source}/pairs", "pairs.parquet"), Input(reference, "model")),
        outputs=(FILE,),
        keys=("training.precision",),
        parameters={"source": source, "reference": reference} | ({"frozen": True} if frozen else {}),
        distributed=True,
    )


def compute(context: StageContext) -> None:
    """Write both completions' summed log-probabilities, in the arithmetic that training uses.

    Raises:
        EngineError: One of them is not a number.
        RunError: Another number of processes came together than the profile asks for.
    """
    join_processes(context.profile)
    source, reference = context.parameter("source"), context.parameter("reference")
    pairs = Pair.read(context.input(f"{source}/pairs", "pairs.parquet"))
    frozen = context.task.stage.parameters.get("frozen", False)
    precision = frozen_precision(context.recipe.training) if frozen else "fp32"
    model = load_model(context.input(reference, "model"), precision, device_of(context.profile.device))
    sequences = [Tokens(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    autocast = context.recipe.training.precision == "bf16"
    batch, workers = context.profile.scoring_batch, context.profile.concurrent_batches
    values = completion_logps(model, sequences, batch=batch, workers=workers, autocast=autocast)
    if launch.rank() > 0:
        return
    digest = context.input_sha256(reference, "model")
    rows = [
        ReferenceLogProbability(pair.prompt_id, values[2 * number], values[2 * number + 1], digest)
        for number, pair in enumerate(pairs)
    ]
    for row in rows:
        if not (math.isfinite(row.chosen_logp) and math.isfinite(row.rejected_logp)):
            raise EngineError(
                f"The reference gives a response to prompt {row.prompt_id} the log-probability NaN or infinity."
            )
    ReferenceLogProbability.write(rows, context.output(FILE))
