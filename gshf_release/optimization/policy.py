"""Holds what DPO and RAFT share: the policy stage, its recipe keys, its training arguments and its outputs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gshf_release.data.hashing import seed_from
from gshf_release.errors import DataError
from gshf_release.models import checkpoints, lora
from gshf_release.optimization.dropout import without_dropout
from gshf_release.optimization.fsdp import gather, running
from gshf_release.optimization.padding_free import without_padding
from gshf_release.recipe import Training
from gshf_release.run import launch
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Input, Parameters, Stage, iteration_stage

if TYPE_CHECKING:
    from gshf_release.optimization.trainer import Resumable

# Every key of `training` but checkpoint_every, which changes nothing in the result, and those that only some stages read.
KEYS = tuple(
    f"training.{key}" for key in Training.model_fields if key not in ("checkpoint_every", "adapter", "sft_weight")
)
ADAPTER_KEY = "training.adapter"
"""Read only by stages that train one."""
BASE = "base"

OPTIMISER = "optimiser"
"""Beside a policy's outputs, where the recipe keeps it: no result depends on it, so no manifest holds it."""


class PolicyParameters(Parameters):
    """Say which policy is made of what."""

    iteration: int
    init: str
    """The stage whose policy training begins with."""
    sources: tuple[str, ...]
    """Whose data it is trained on: `iteration-1`, `offline`."""


def policy_stage(
    iteration: int,
    *,
    identity: str,
    work: str,
    numbers: str,
    init: str,
    sources: Sequence[str],
    files: Sequence[tuple[str, str]],
    adapter: bool = False,
    more_keys: Sequence[str] = (),
) -> Stage:
    """Return the stage that makes the policy of an iteration from the `model` of stage `init`, or its `adapter`.

    Args:
        iteration: Which policy it puts out.
        identity: Of the stage, with its version.
        work: The function that trains.
        numbers: The function that computes the cells.
        init: The stage whose `model` it starts from.
        sources: Which iterations' data it is trained on.
        files: `(stage, file)` that every source has, for example `("pairs", "pairs.parquet")`.
        adapter: Train an adapter on the base, beginning with that of `init` if it has one.
        more_keys: Recipe keys that it reads beside those of every policy.
    """
    begins = [Input(init, "model")]
    if adapter:
        begins = [Input(BASE, "model"), *([] if init == BASE else [Input(init, lora.FOLDER)])]
    read = [Input(f"{source}/{stage}", file) for source in sources for stage, file in files]
    return Stage(
        name=iteration_stage(iteration, "policy"),
        identity=identity,
        work=work,
        kind="training",
        inputs=(*begins, *read),
        outputs=("model", *([lora.FOLDER] if adapter else []), "training.json"),
        keys=("seed", *KEYS, *([ADAPTER_KEY] if adapter else []), *more_keys),
        parameters=PolicyParameters(iteration=iteration, init=init, sources=tuple(sources)).as_json(),
        numbers=numbers,
        distributed=True,
    )


def train_policy(
    context: StageContext,
    lengths: Sequence[int],
    *,
    counted: str,
    dropped: str,
    build: Callable[[Any, Any, str], Any],
    metrics: Callable[[Mapping[str, float]], dict[str, float]],
) -> None:
    """Train the policy; write its FP32 weights (or adapter and merged model) and every optimiser step's metrics.

    Args:
        context: The stage.
        lengths: In tokens, of the rows it is trained on.
        counted: What a row is, in the plural; the key of their number in training.json.
        dropped: The stage that counts why rows were dropped, for example `pairs`.
        build: `(model, tokenizer, device) -> trainer`.
        metrics: What is kept of a step's log.

    Raises:
        DataError: There are no rows.
    """
    from gshf_release.optimization.trainer import resumed_at, run_trainer

    iteration = context.parameters(PolicyParameters).iteration
    if not lengths:
        raise DataError(
            f"Iteration {iteration} has no {counted} to train on.",
            hint=f"{iteration_stage(iteration, dropped)}/dropped.json counts the reasons.",
        )
    device = checkpoints.device_of(context.profile.device)
    alone = context.profile.world_size == 1
    tokenizer = checkpoints.load_tokenizer(_start_folder(context))
    # On the CPU if several processes train: FSDP and ZeRO move to each device its part, and the whole may not fit there.
    trainer = build(start(context, device if alone else "cpu"), tokenizer, device)
    launch.require_world_size(context.profile, trainer.args.world_size)
    with without_padding(trainer.model, lengths) as packed:
        if launch.rank() == 0:
            context.log(
                "training",
                world_size=trainer.args.world_size,
                resumed_at=resumed_at(context.scratch),
                padding="none" if packed else "longest",
            )
        steps = run_trainer(
            trainer, context.scratch, context.profile.training_threads, CheckpointLayout.of(context.profile)
        )
    distribution = running(trainer)._asdict()
    trained = gather(trainer, lambda: start(context, "cpu"))
    if trained is not None:  # rank 0, which alone has whole weights
        keep_optimiser(context)
        changed = _write_model(context, trained, tokenizer)
        facts = {counted: len(lengths), "changed_after_bf16": changed, "distribution": distribution}
        write_json(context.output("training.json"), facts | {"steps": [metrics(entry) for entry in steps]})


def _write_model(context: StageContext, trained: Any, tokenizer: Any) -> float:
    """Write what was trained, an adapter also merged; return the share of weights that rounding to BF16 leaves changed."""
    if context.recipe.training.adapter is not None:
        # Saved before the merge, which uses the adapter up.
        lora.save(trained, context.output(lora.FOLDER))
        trained = lora.merge(trained)
    changed = share_changed(checkpoints.load_model(_start_folder(context), "bf16"), trained)
    checkpoints.save(trained, tokenizer, context.output("model"))
    return changed


def start(context: StageContext, device: str) -> Any:
    """Return the policy to train: the last one, or the base with an adapter, new or that of the last one."""
    training = context.recipe.training
    precision = "fp32" if training.adapter is None else lora.frozen_precision(training)
    model = without_dropout(checkpoints.load_model(_start_folder(context), precision, device))
    if training.adapter is None:
        return model
    init = context.parameters(PolicyParameters).init
    if init == BASE:
        return lora.attach(model, training.adapter, seed_from(context.seed, lora.FOLDER))
    return lora.load(model, context.input(init, lora.FOLDER), trainable=True)


def _start_folder(context: StageContext) -> Path:
    """Return the checkpoint that training begins with: the last policy's, or the base under an adapter."""
    adapter = context.recipe.training.adapter is not None
    return context.input(BASE if adapter else context.parameters(PolicyParameters).init, "model")


def keep_optimiser(context: StageContext) -> None:
    """Keep the state of the finished optimisation if the recipe says so: the newest checkpoint without the weights."""
    from gshf_release.optimization.trainer import latest_checkpoint

    folder = context.run.folder(context.task) / OPTIMISER
    shutil.rmtree(folder, ignore_errors=True)
    newest = latest_checkpoint(context.scratch)
    if context.recipe.loop.keep.optimiser == "none" or newest is None:
        return
    folder.mkdir(parents=True)
    for path in sorted(Path(newest).iterdir()):
        if path.name.startswith(("optimizer", "scheduler", "trainer_state", "global_step")):
            shutil.move(path, folder / path.name)


def resumable(context: StageContext) -> Resumable:
    """Return the callback that checkpoints an optimisation as profile and recipe say."""
    from gshf_release.optimization.trainer import Resumable

    kept = context.recipe.loop.keep.optimiser != "none"
    minutes, layout = context.profile.checkpoint_minutes, CheckpointLayout.of(context.profile)
    return Resumable(context.progress, layout, minutes=minutes, at_end=kept)


def training_arguments(
    context: StageContext, keys: Sequence[str], lengths: Sequence[int], device: str
) -> tuple[list[int | None], dict[str, Any]]:
    """Return the order in which the examples are trained on, all epochs in one, and the trainer's arguments.

    None in the order stands for an empty example (see `fill_last_step`).

    Args:
        context: The stage.
        keys: What identifies each example.
        lengths: Their lengths in tokens.
        device: Where.
    """
    from gshf_release.optimization.loss_averaging import fill_last_step
    from gshf_release.optimization.trainer import common_arguments, training_order

    training = context.recipe.training
    processes, micro_batch = context.profile.world_size, context.profile.micro_batch_pairs
    stream = training_order(keys, lengths, epochs=training.epochs, batch=training.batch_pairs, seed=context.seed)
    order = fill_last_step(stream, batch=training.batch_pairs, micro_batch=micro_batch, processes=processes)
    arguments = common_arguments(
        scratch=context.scratch,
        device=device,
        batch=training.batch_pairs,
        micro_batch=micro_batch,
        processes=processes,
        sharding=context.profile.sharding,
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


def share_changed(before: Any, model: Any) -> float:
    """Return the share of a model's weights whose BF16 cast differs from before: smaller updates do not reach the release.

    Args:
        before: What training began with, in BF16. It is loaded when training has ended, so that no process holds it meanwhile.
        model: What training put out.
    """
    # BF16 has 8 significant bits: of a weight w, an update below about w / 512 is mostly rounded away.
    old = dict(before.named_parameters())
    changed = total = 0
    for name, weight in model.named_parameters():
        changed += int((weight.detach().bfloat16().cpu() != old[name].bfloat16()).sum())
        total += weight.numel()
    return changed / total


def last_quarter(steps: Sequence[Mapping[str, float]], metric: str) -> float:
    """Return a metric's mean over the last quarter of the optimiser steps."""
    last = steps[-max(1, len(steps) // 4) :]
    return sum(step[metric] for step in last) / len(last)
