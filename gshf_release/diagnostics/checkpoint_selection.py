"""Choose the iteration that is released: the last, or the best on validation prompts within budgets of KL and length."""

from __future__ import annotations

import math

from gshf_release.data.results import find, read_cells
from gshf_release.errors import RunError
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import RESULTS, Input, Parameters, Stage, iteration_row


class FinalParameters(Parameters):
    """Say how many iterations there are to choose from."""

    iterations: int


def declare_checkpoint_selection(iterations: int) -> Stage:
    """Declare the choice of the iteration that becomes the release."""
    measures = [f"{row}/validation/measure" for row in ("base", *(iteration_row(t) for t in range(1, iterations + 1)))]
    return Stage(
        name="final",
        identity="choose-iteration/1",
        work="gshf_release.diagnostics.checkpoint_selection:select_checkpoint",
        kind="other",
        inputs=tuple(Input(measure, RESULTS) for measure in measures),
        outputs=("final.json",),
        keys=("loop.final", "loop.kl_budget", "loop.length_budget"),
        parameters=FinalParameters(iterations=iterations).as_json(),
    )


def select_checkpoint(context: StageContext) -> None:
    """Write which iteration is the release, and what every iteration cost.

    The last, or the one with the highest mean validation reward at T=0.7 among those within the budgets of KL and length: the
    cited algorithm chooses on a validation set (arXiv 2405.07863), and reward alone would reward leaving the base. If none is
    within, it is the one nearest to the base.
    """
    loop = context.recipe.loop
    length = _validated(context, "base", "length")
    candidates = [
        {
            "iteration": iteration,
            "reward": _validated(context, iteration_row(iteration), "score"),
            "kl": _validated(context, iteration_row(iteration), KL_TO_BASE),
            "length_ratio": _validated(context, iteration_row(iteration), "length") / length,
        }
        for iteration in range(1, context.parameters(FinalParameters).iterations + 1)
    ]
    within = [
        entry
        for entry in candidates
        if entry["kl"] <= (loop.kl_budget or math.inf) and entry["length_ratio"] <= (loop.length_budget or math.inf)
    ]
    if loop.final == "last":
        chosen, reason = candidates[-1], "the last"
    elif within:
        chosen, reason = max(within, key=lambda entry: entry["reward"]), "highest validation reward within the budgets"
    else:
        chosen, reason = (
            min(candidates, key=lambda entry: entry["kl"]),
            "none is within the budgets; the nearest to the base",
        )
    document = {"iteration": chosen["iteration"], "reason": reason, "candidates": candidates}
    write_json(context.output("final.json"), document)


def _validated(context: StageContext, row: str, metric: str) -> float:
    """Return a validation cell's value: at T=0.7 where the decoding matters."""
    cells = read_cells(context.results(f"{row}/validation/measure"))
    decoding = {} if metric == KL_TO_BASE else {"decoding": "T=0.7"}
    found = find(cells, row=row, metric=metric, **decoding)
    if found is None or found.value is None:
        raise RunError(f"{row} has no validated {metric}.")
    return found.value
