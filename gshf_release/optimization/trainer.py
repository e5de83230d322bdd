"""Make Hugging Face trainers resumable: they can be killed at any moment and go on to the same result.

A checkpoint counts only if it was written to its end; SIGTERM saves one and stops; examples come in an order of our own, so a
resumed run sees exactly what an unbroken one would have seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gshf_release.data.hashing import seed_from
from gshf_release.errors import Interrupted
from gshf_release.models.batching import PATIENCE
from gshf_release.optimization.distributed import arguments as sharding_arguments
from gshf_release.optimization.distributed import split_batch
from gshf_release.optimization.fsdp import require_distribution, running
from gshf_release.run import interrupt
from gshf_release.run.checkpoint_layout import COMPLETE, CheckpointLayout, mark
from gshf_release.run.context import Progress


class Resumable(TrainerCallback):
    """Marks finished checkpoints, reports progress, and turns a request to stop into a checkpoint and a stop.

    Args:
        progress: Hears of every step.
        layout: Of the checkpoints.
        minutes: Checkpoint when this long has passed since the last one.
        at_end: Also checkpoint the last step, for those who want to keep the optimiser's state.
    """

    def __init__(
        self, progress: Progress, layout: CheckpointLayout, *, minutes: float = math.inf, at_end: bool = False
    ) -> None:
        self.progress = progress
        self.layout = layout
        self.minutes = minutes
        self.at_end = at_end
        self.saved = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint just written as complete, once every process has written its part."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark(folder, self.layout)
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the step; save and stop if asked to."""
        self.progress(state.global_step, state.max_steps, "optimiser steps")
        stop, due = _any_process(interrupt.requested(), time.monotonic() - self.saved > 60 * self.minutes, args)
        if due:
            control.should_save = True
        if self.at_end and state.global_step == state.max_steps:
            control.should_save = True
        if stop and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True


class _RequireDistribution(TrainerCallback):
    """Refuses, on every rank and before the first step, a training that is divided otherwise than it was asked for."""

    def __init__(self, trainer: Any, wanted: CheckpointLayout) -> None:
        self.trainer, self.wanted = trainer, wanted

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare.

        Raises:
            RunError: They differ.
        """
        require_distribution(self.wanted, running(self.trainer), self.trainer.args.device.type)


def _any_process(stop: bool, due: bool, args: TrainingArguments) -> tuple[bool, bool]:
    """Return what any of the training processes says: they must save and stop at the same step."""
    if args.world_size == 1:
        return stop, due
    said = torch.tensor([stop, due], dtype=torch.int32, device=args.device)
    torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
    return bool(said[0]), bool(said[1])


def latest_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, or None."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def resumed_at(folder: Path) -> int:
    """Return the optimiser step of the newest complete checkpoint, 0 without one."""
    newest = latest_checkpoint(folder)
    return 0 if newest is None else int(newest.rpartition("-")[2])


def training_order(keys: Sequence[str], lengths: Sequence[int], *, epochs: int, batch: int, seed: int) -> list[int]:
    """Return the positions of all epochs' examples, in the order they are trained on.

    Each epoch is shuffled by (seed, epoch, key), independent of the order given. Within one optimiser step the longest come
    first: the step's gradient is the same and its micro-batches pad less.
    """
    stream: list[int] = []
    for epoch in range(epochs):
        stream += sorted(range(len(keys)), key=lambda index: seed_from(seed, "order", epoch, keys[index]))
    order: list[int] = []
    for start in range(0, len(stream), batch):
        order += sorted(stream[start : start + batch], key=lambda index: (-lengths[index], keys[index]))
    return order


def common_arguments(
    *,
    scratch: Path,
    device: str,
    batch: int,
    micro_batch: int,
    examples: int,
    learning_rate: float,
    schedule: str,
    warmup_share: float,
    precision: str,
    checkpoint_every: int,
    processes: int = 1,
    sharding: str = "none",
) -> dict[str, Any]:
    """Return the TrainingArguments that every optimisation here shares. `batch` and `micro_batch` count examples.

    The batch of an optimiser step is the recipe's, over however many processes: they accumulate less.

    Raises:
        RecipeError: The processes or the micro-batch of the profile do not divide the batch of the recipe.
    """
    micro_batch, accumulated = split_batch(batch, micro_batch, processes)
    steps = math.ceil(examples / batch)
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": 1,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if schedule == "constant" else schedule,
        "warmup_steps": math.ceil(warmup_share * steps),
        "bf16": precision == "bf16",
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": checkpoint_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": device != "cpu",
        "seed": 0,
        "ddp_timeout": int(PATIENCE.total_seconds()),
    } | sharding_arguments(sharding, processes, bf16=precision == "bf16")


def run_trainer(trainer: Any, scratch: Path, threads: int | None, wanted: CheckpointLayout) -> list[dict[str, float]]:
    """Train, from the newest complete checkpoint if there is one, and return one entry of metrics per optimiser step.

    Args:
        trainer: Any trainer of transformers or TRL.
        scratch: Where its checkpoints are.
        threads: CPU threads of torch meanwhile; None leaves them.
        wanted: How the processes must divide its model.

    Raises:
        Interrupted: Asked to stop; a checkpoint has been saved.
        RunError: They divide it otherwise; said before the first step.
    """
    import torch
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_RequireDistribution(trainer, wanted))
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        trainer.train(resume_from_checkpoint=latest_checkpoint(scratch))
    finally:
        torch.set_num_threads(before)
    if trainer.state.global_step < trainer.state.max_steps:  # another of the processes may be the one that was asked
        raise Interrupted(interrupt.MESSAGE)
    return [entry for entry in trainer.state.log_history if "loss" in entry]
