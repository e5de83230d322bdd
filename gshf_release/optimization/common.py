"""What DPO and RAFT share: the stage that makes a policy, its recipe keys and arguments, the share of weights that moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gshf_release import checkpoints
from gshf_release.errors import DataError
from gshf_release.recipe import Training
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Input, Stage

if TYPE_CHECKING:
    from gshf_release.resumption import Resumable

# Every key of `training` but checkpoint_every, which changes nothing in the result.
KEYS = tuple(f"training.{key}" for key in Training.model_fields if key != "checkpoint_every")


OPTIMISER = "optimiser"
"""Beside a policy's outputs, where the recipe keeps it: no result depends on it, so no manifest holds it."""


def policy_stage(
    work: str, iteration: int, *, init: str, sources: Sequence[str], files: Sequence[tuple[str, str]]
) -> Stage:
    """Return the stage that makes the policy of an iteration from the `model` of stage `init`.

    Args:
        work: The module that has `optimise` and `numbers`.
        iteration: Which policy it puts out.
        init: The stage whose `model` it starts from.
        sources: Which iterations' data it is trained on.
        files: `(stage, file)` that every source has, for example `("pairs", "pairs.parquet")`.
    """
    read = [Input(f"{source}/{stage}", file) for source in sources for stage, file in files]
    return Stage(
        name=f"iteration-{iteration}/policy",
        work=f"{work}:optimise",
        inputs=(Input(init, "model"), *read),
        outputs=("model", "training.json"),
        keys=("seed", *KEYS),
        parameters={"iteration": iteration, "init": init, "sources": list(sources)},
        numbers=f"{work}:numbers",
    )


def train_policy(
    context: StageContext,
    rows: Sequence[Mapping[str, Any]],
    *,
    counted: str,
    dropped: str,
    build: Callable[[Any, Any, str], Any],
    metrics: Callable[[Mapping[str, float]], dict[str, float]],
) -> None:
    """Train the policy on `rows` and write its FP32 weights and the metrics of every optimiser step.

    Args:
        context: The stage.
        rows: What it is trained on.
        counted: What a row is, in the plural; the key of their number in training.json.
        dropped: The stage that counts why rows were dropped, for example `pairs`.
        build: `(model, tokenizer, device) -> trainer`.
        metrics: What is kept of a step's log.

    Raises:
        DataError: There are no rows.
    """
    from gshf_release.resumption import run_trainer

    iteration, init = context.parameter("iteration"), context.parameter("init")
    if not rows:
        raise DataError(
            f"Iteration {iteration} has no {counted} to train on.",
            hint=f"iteration-{iteration}/{dropped}/dropped.json counts the reasons.",
        )
    device = checkpoints.device_of(context.profile.device)
    model = checkpoints.load_model(context.input(init, "model"), "fp32", device)
    tokenizer = checkpoints.load_tokenizer(context.input(init, "model"))
    before = {name: weight.detach().bfloat16().cpu() for name, weight in model.named_parameters()}
    trainer = build(model, tokenizer, device)
    steps = run_trainer(trainer, context.scratch)
    keep_optimiser(context)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    document = {
        counted: len(rows),
        "changed_after_bf16": share_changed(before, trained),
        "steps": [metrics(entry) for entry in steps],
    }
    checkpoints.save(trained, tokenizer, context.output("model"))
    write_json(context.output("training.json"), document)


def keep_optimiser(context: StageContext) -> None:
    """Keep the state of the finished optimisation if the recipe says so: the newest checkpoint without the weights."""
    from gshf_release.resumption import latest_checkpoint

    folder = context.run.folder(context.task) / OPTIMISER
    shutil.rmtree(folder, ignore_errors=True)
    newest = latest_checkpoint(context.scratch)
    if context.recipe.loop.keep.optimiser == "none" or newest is None:
        return
    folder.mkdir(parents=True)
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json"):
        shutil.move(Path(newest) / name, folder / name)


def resumable(context: StageContext) -> Resumable:
    """Return the callback that checkpoints an optimisation as profile and recipe say."""
    from gshf_release.resumption import Resumable

    kept = context.recipe.loop.keep.optimiser != "none"
    return Resumable(context.progress, minutes=context.profile.checkpoint_minutes, at_end=kept)


def training_arguments(
    context: StageContext, keys: Sequence[str], lengths: Sequence[int], device: str
) -> tuple[list[int], dict[str, Any]]:
    """Return the order in which the examples are trained on, all epochs in one, and the trainer's arguments.

    Args:
        context: The stage.
        keys: What identifies each example.
        lengths: Their lengths in tokens.
        device: Where.
    """
    from gshf_release.resumption import common_arguments, training_order

    training = context.recipe.training
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
    arguments |= {
        "max_grad_norm": training.max_gradient_norm,
        "weight_decay": training.weight_decay,
        "gradient_checkpointing": context.profile.activation_checkpointing,
    }
    return order, arguments


def share_changed(before: Mapping[str, Any], model: Any) -> float:
    """Return the share of weights whose BF16 cast differs from before: smaller updates do not reach the release."""
    changed = total = 0
    for name, weight in model.named_parameters():
        changed += int((weight.detach().bfloat16().cpu() != before[name]).sum())
        total += weight.numel()
    return changed / total


def last_quarter(steps: Sequence[Mapping[str, float]], metric: str) -> float:
    """Return a metric's mean over the last quarter of the optimiser steps."""
    last = steps[-max(1, len(steps) // 4) :]
    return sum(step[metric] for step in last) / len(last)
