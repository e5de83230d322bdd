"""Direct preference optimisation (arXiv 2305.18290) of one iteration, on TRL's DPOTrainer.

TRL is handed token ids and reference log-probabilities, so that it neither tokenises text again, nor appends an EOS to a
response that was cut, nor takes the moving policy as its own reference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gshf_release import checkpoints
from gshf_release.errors import DataError
from gshf_release.recipe import Recipe, Training
from gshf_release.records import Pair, ReferenceLogProbability
from gshf_release.results import Cell
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Stage

# Every key of `training` but checkpoint_every, which changes nothing in the result.
KEYS = tuple(f"training.{key}" for key in Training.model_fields if key != "checkpoint_every")


def declare(iteration: int, *, init: str, history: Sequence[int]) -> Stage:
    """Declare the optimisation of iteration `iteration` from the `model` of stage `init`, on the pairs of `history`."""
    inputs = [Input(init, "model")]
    for past in history:
        inputs.append(Input(f"iteration-{past}/pairs", "pairs.parquet"))
        inputs.append(Input(f"iteration-{past}/reference", "reference.parquet"))
    return Stage(
        name=f"iteration-{iteration}/policy",
        work="gshf_release.optimization.dpo:optimise",
        inputs=tuple(inputs),
        outputs=("model", "training.json"),
        keys=("seed", *KEYS),
        parameters={"iteration": iteration, "init": init, "history": list(history)},
        numbers="gshf_release.optimization.dpo:numbers",
    )


def optimise(context: StageContext) -> None:
    """Train the policy and write its FP32 weights and the metrics of every optimiser step.

    Raises:
        DataError: No pairs are left to train on.
    """
    iteration, init = context.parameter("iteration"), context.parameter("init")
    rows = _rows(context)
    if not rows:
        raise DataError(
            f"Iteration {iteration} has no preference pairs.",
            hint=f"iteration-{iteration}/pairs/dropped.json counts the reasons.",
        )
    from gshf_release.resumption import run_trainer

    device = checkpoints.device_of(context.profile.device)
    model = checkpoints.load_model(context.input(init, "model"), "fp32", device)
    tokenizer = checkpoints.load_tokenizer(context.input(init, "model"))
    before = {name: weight.detach().bfloat16().cpu() for name, weight in model.named_parameters()}
    trainer = _trainer(context, model, tokenizer, rows, device)
    steps = run_trainer(trainer, context.scratch)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    document = {
        "pairs": len(rows),
        "changed_after_bf16": _share_changed(before, trained),
        "steps": [_metrics(entry) for entry in steps],
    }
    checkpoints.save(trained, tokenizer, context.output("model"))
    context.output("training.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def numbers(context: StageContext) -> list[Cell]:
    """Return loss and accuracy at the first and over the last optimiser steps, and how many weights moved."""
    path = context.output("training.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    steps = document["steps"]
    last = steps[-max(1, len(steps) // 4) :]
    row = f"iteration-{context.parameter('iteration')}"
    place = {"table": "training", "row": row, "artefact": context.run.relative(path), "n": document["pairs"]}
    accuracy = 100 * sum(step["accuracy"] for step in last) / len(last)
    return [
        Cell(metric="DPO loss, first step", value=steps[0]["loss"], **place),
        Cell(metric="DPO loss, last quarter", value=sum(step["loss"] for step in last) / len(last), **place),
        Cell(metric="DPO accuracy, last quarter", value=accuracy, unit="%", **place),
        Cell(metric="optimiser steps", value=len(steps), **place),
        Cell(metric="weights changed after BF16", value=100 * document["changed_after_bf16"], unit="%", **place),
    ]


def _rows(context: StageContext) -> list[dict[str, Any]]:
    """Return what TRL's collator reads, one mapping a pair."""
    rows = []
    for past in context.parameter("history"):
        pairs = Pair.read(context.input(f"iteration-{past}/pairs", "pairs.parquet"))
        references = ReferenceLogProbability.read(context.input(f"iteration-{past}/reference", "reference.parquet"))
        for pair, reference in zip(pairs, references, strict=True):
            rows.append(
                {
                    "prompt_id": pair.prompt_id,
                    "prompt_ids": pair.prompt_ids,
                    "chosen_ids": pair.chosen_ids,
                    "rejected_ids": pair.rejected_ids,
                    "ref_chosen_logps": reference.chosen_logp,
                    "ref_rejected_logps": reference.rejected_logp,
                }
            )
    return rows


def _trainer(context: StageContext, model: Any, tokenizer: Any, rows: list[dict[str, Any]], device: str) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    from gshf_release.resumption import Resumable, common_arguments, training_order

    training = context.recipe.training
    lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    keys = [row["prompt_id"] for row in rows]
    order = training_order(keys, lengths, epochs=training.epochs, batch=training.batch_pairs, seed=context.seed)
    arguments = common_arguments(
        scratch=context.scratch,
        device=device,
        batch=training.batch_pairs,
        micro_batch=context.profile.micro_batch_pairs,
        examples=len(order),
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        warmup_share=training.warmup_share,
        precision=training.precision,
        checkpoint_every=training.checkpoint_every,
    )
    configuration = DPOConfig(
        **arguments,
        **loss_arguments(training),
        max_grad_norm=training.max_gradient_norm,
        weight_decay=training.weight_decay,
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=context.profile.activation_checkpointing,
    )
    return token_trainer()(
        model=model,
        args=configuration,
        train_dataset=Dataset.from_list([rows[index] for index in order]),
        processing_class=tokenizer,
        callbacks=[Resumable(context.progress)],
    )


def loss_arguments(training: Training) -> dict[str, Any]:
    """Return TRL's arguments for the recipe's loss of x = beta * (chosen log-ratio - rejected log-ratio).

    With L = log sigmoid and e = label_smoothing:

        sigmoid   -L(x)
        smoothed  -(1 - e) L(x) - e L(-x)
        robust    (-(1 - e) L(x) + e L(-x)) / (1 - 2e)
        ipo       (d - 1 / (2 beta))^2, where d is the difference of the log-ratios per token

    TRL's `sigmoid` ignores label smoothing; `smoothed` is 2 (1 - e) times its sigmoid minus (1 - 2e) times its robust loss.
    """
    smoothing = training.label_smoothing
    shared = {"beta": training.beta, "label_smoothing": smoothing}
    if training.loss == "smoothed":
        weights = [2 * (1 - smoothing), -(1 - 2 * smoothing)]
        return shared | {"loss_type": ["sigmoid", "robust"], "loss_weights": weights}
    return shared | {"loss_type": [training.loss]}


def token_trainer() -> Any:
    """Return a DPOTrainer that takes ids and reference log-probabilities as they are."""
    from trl import DPOTrainer

    class TokenDPOTrainer(DPOTrainer):  # type: ignore[misc]
        """TRL's loss and metrics on rows of prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps, ref_rejected_logps."""

        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
            return dataset

    return TokenDPOTrainer


def _metrics(entry: dict[str, float]) -> dict[str, float]:
    return {
        "step": entry["step"],
        "loss": entry["loss"],
        "accuracy": entry["rewards/accuracies"],
        "margin": entry["rewards/margins"],
        "gradient_norm": entry["grad_norm"],
    }


def _share_changed(before: dict[str, Any], model: Any) -> float:
    """Return the share of weights whose BF16 cast differs from before: smaller updates do not reach the release."""
    changed = total = 0
    for name, weight in model.named_parameters():
        changed += int((weight.detach().bfloat16().cpu() != before[name]).sum())
        total += weight.numel()
    return changed / total
