"""Direct preference optimisation (arXiv 2305.18290) of one iteration, on TRL's DPOTrainer.

TRL is handed token ids and reference log-probabilities, so that it neither tokenises text again, nor appends an EOS to a
response that was cut, nor takes the moving policy as its own reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gshf_release.data.records import Pair, ReferenceLogProbability
from gshf_release.data.results import Cell
from gshf_release.errors import RunError
from gshf_release.optimization.chosen_nll import METRIC, with_chosen_nll
from gshf_release.optimization.loss_averaging import LOG_TWO, mean_over_pairs
from gshf_release.optimization.padding_free import padding_free
from gshf_release.optimization.policy import (
    PolicyParameters,
    last_quarter,
    policy_stage,
    resumable,
    train_policy,
    training_arguments,
)
from gshf_release.optimization.trl_internals import token_dpo_trainer
from gshf_release.recipe import Training
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json
from gshf_release.run.stage import Stage, iteration_row

IDENTITY = "train-dpo/1"
NLL_KEY = "training.sft_weight"
"""Read only where it is above 0: the fingerprints of runs made before it stay."""


def declare_dpo(
    iteration: int, *, init: str, sources: Sequence[str], adapter: bool = False, nll: bool = False
) -> Stage:
    """Declare the optimisation of iteration `iteration` from the `model` of stage `init`.

    Args:
        iteration: Which policy it puts out.
        init: The stage whose `model` it starts from.
        sources: Where pairs come from: `<source>/pairs` and their `<source>/reference`.
        adapter: Train an adapter on the base rather than all weights.
        nll: Add the NLL of the chosen responses to the loss.
    """
    files = (("pairs", "pairs.parquet"), ("reference", "reference.parquet"))
    return policy_stage(
        iteration,
        identity=IDENTITY,
        work="gshf_release.optimization.dpo:train_dpo",
        numbers="gshf_release.optimization.dpo:dpo_cells",
        init=init,
        sources=sources,
        files=files,
        adapter=adapter,
        more_keys=(NLL_KEY,) if nll else (),
    )


def train_dpo(context: StageContext) -> None:
    """Train the policy on the pairs and write its FP32 weights and the metrics of every optimiser step.

    Raises:
        DataError: No pairs are left to train on.
    """
    rows = _rows(context)
    lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]

    def build(model: Any, tokenizer: Any, device: str) -> Any:
        return _trainer(context, model, tokenizer, rows, lengths, device)

    metrics = partial(_metrics, sft_weight=context.recipe.training.sft_weight)
    train_policy(context, lengths, counted="pairs", dropped="pairs", build=build, metrics=metrics)


def dpo_cells(context: StageContext) -> list[Cell]:
    """Return the losses at the first and over the last optimiser steps, accuracy, and how many weights moved."""
    path = context.output("training.json")
    document = read_json(path)
    steps = document["steps"]
    row = iteration_row(context.parameters(PolicyParameters).iteration)
    place = {"table": "training", "row": row, "artefact": context.run.relative(path), "n": document["pairs"]}
    nll: list[Cell] = []
    loss = "loss"
    if METRIC in steps[0]:
        loss, unit = "preference_loss", "nats per token"
        nll = [
            Cell(metric="NLL of the chosen, first step", value=steps[0][METRIC], unit=unit, **place),
            Cell(metric="NLL of the chosen, last quarter", value=last_quarter(steps, METRIC), unit=unit, **place),
        ]
    return [
        Cell(metric="DPO loss, first step", value=steps[0][loss], **place),
        Cell(metric="DPO loss, last quarter", value=last_quarter(steps, loss), **place),
        *nll,
        Cell(metric="DPO accuracy, last quarter", value=100 * last_quarter(steps, "accuracy"), unit="%", **place),
        Cell(metric="optimiser steps", value=len(steps), **place),
        Cell(metric="weights changed after BF16", value=100 * document["changed_after_bf16"], unit="%", **place),
    ]


def _rows(context: StageContext) -> list[dict[str, Any]]:
    """Return what TRL's collator reads, one mapping a pair.

    Raises:
        RunError: The reference log-probabilities are of other pairs, or of several references.
    """
    rows = []
    references = set()
    sources = context.parameters(PolicyParameters).sources
    for source in sources:
        pairs = Pair.read(context.input(f"{source}/pairs", "pairs.parquet"))
        known = ReferenceLogProbability.read(context.input(f"{source}/reference", "reference.parquet"))
        if [entry.prompt_id for entry in known] != [pair.prompt_id for pair in pairs]:
            raise RunError(f"{source}/reference belongs to other pairs than {source}/pairs.", hint=f"Delete {source}.")
        references |= {entry.reference_sha256 for entry in known}
        for pair, reference in zip(pairs, known, strict=True):
            rows.append(
                {
                    "prompt_id": pair.prompt_id,
                    "prompt_ids": pair.prompt_ids,
                    "chosen_ids": pair.chosen_ids,
                    "rejected_ids": pair.rejected_ids,
                    "ref_chosen_logps": reference.chosen_logp - uncertainty(pair, context.recipe.training),
                    "ref_rejected_logps": reference.rejected_logp,
                }
            )
    if len(references) > 1:
        raise RunError(f"The pairs of {', '.join(sources)} know {len(references)} reference policies.")
    return rows


def uncertainty(pair: Pair, training: Training) -> float:
    """Return what the chosen reference log-probability is lowered by, so that x gains the pair's uncertainty margin.

    x = beta * (chosen log-ratio - rejected log-ratio), so lowering the reference of the chosen side by m / beta raises x by m.
    """
    if not training.uncertainty_weight or pair.chosen_deviation is None or pair.rejected_deviation is None:
        return 0.0
    return training.uncertainty_weight * (pair.chosen_deviation - pair.rejected_deviation) / training.beta


def _trainer(
    context: StageContext, model: Any, tokenizer: Any, rows: list[dict[str, Any]], lengths: list[int], device: str
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    order, arguments = training_arguments(context, [row["prompt_id"] for row in rows], lengths, device)
    configuration = DPOConfig(
        **arguments,
        **loss_arguments(context.recipe.training),
        max_length=None,
        precompute_ref_log_probs=True,
        router_aux_loss_coef=0.0,  # the load-balancing loss of a mixture of experts is no part of DPO
    )
    trainer = token_trainer(context.recipe.training)(
        model=model,
        args=configuration,
        train_dataset=Dataset.from_list([_empty(rows[0]) if index is None else rows[index] for index in order]),
        processing_class=tokenizer,
        callbacks=[resumable(context)],
    )
    if context.recipe.training.adapter is not None:
        trainer.model.delete_adapter("ref")  # TRL's copy, for a reference that is computed already
    return trainer


def _empty(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pair without responses: its log-ratios are 0 whatever the weights are."""
    empty = {"chosen_ids": [], "rejected_ids": [], "ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0}
    return {**row, "prompt_ids": row["prompt_ids"][:1], **empty}


def loss_arguments(training: Training) -> dict[str, Any]:
    """Return TRL's arguments for the recipe's loss of x = beta * (chosen log-ratio - rejected log-ratio).

    With L = log sigmoid and e = label_smoothing:

        sigmoid   -L(x)
        smoothed  -(1 - e) L(x) - e L(-x)
        robust    (-(1 - e) L(x) + e L(-x)) / (1 - 2e)
        ipo       (d - 1 / (2 beta))^2, where d is the difference of the log-ratios per token

    Equation 17 of arXiv 2310.12036 has the whole responses' log-ratios in `d`. Each is divided by its response's tokens here
    because TRL does so, by its account with the paper's authors; beta means something else than in the equation.
    TRL's `sigmoid` ignores label smoothing; `smoothed` is 2 (1 - e) times its sigmoid minus (1 - 2e) times its robust loss.
    """
    smoothing = training.label_smoothing
    shared = {"beta": training.beta, "label_smoothing": smoothing}
    if training.loss == "smoothed":
        weights = [2 * (1 - smoothing), -(1 - 2 * smoothing)]
        return shared | {"loss_type": ["sigmoid", "robust"], "loss_weights": weights}
    return shared | {"loss_type": [training.loss]}


def token_trainer(training: Training) -> Any:
    """Return a DPOTrainer that takes ids and reference log-probabilities as they are, and weighs the pairs of a step alike."""

    def real(inputs: Mapping[str, Any]) -> Any:
        return inputs["completion_mask"].any(dim=1).chunk(2)[0]

    # Of a pair without log-ratios: 1 / (2 beta) squared for IPO, log 2 for every loss of a sigmoid.
    empty = (2 * training.beta) ** -2 if training.loss == "ipo" else LOG_TWO
    trainer = mean_over_pairs(token_dpo_trainer(), real=real, empty_loss=empty, metrics=("rewards/", "logps/"))
    return padding_free(with_chosen_nll(trainer, training.sft_weight) if training.sft_weight else trainer)


def _metrics(entry: Mapping[str, float], *, sft_weight: float) -> dict[str, float]:
    """Return what is kept of a step: with the NLL also the loss without it, which is ln 2 where policy and reference agree."""
    found = {
        "step": entry["step"],
        "loss": entry["loss"],
        "accuracy": entry["rewards/accuracies"],
        "margin": entry["rewards/margins"],
        "gradient_norm": entry["grad_norm"],
    }
    if not sft_weight:
        return found
    return found | {METRIC: entry[METRIC], "preference_loss": entry["loss"] - sft_weight * entry[METRIC]}
