"""Divide a batch, and a policy's state, among training processes."""

from __future__ import annotations

import importlib.util
from typing import Any

from gshf_release.errors import RecipeError, RunError
from gshf_release.recipe import Training
from gshf_release.recipe.profile import Profile


def check_sharding(training: Training, profile: Profile) -> None:
    """Refuse a profile that could not train, before anything runs.

    Raises:
        RecipeError: Its processes or micro-batch do not divide the recipe's batch.
        RunError: It needs DeepSpeed, which is not installed, or divides the weights of a model under an adapter.
    """
    split_batch(training.batch_pairs, profile.micro_batch_pairs, profile.world_size)
    if training.adapter is not None and profile.sharding != "none":
        raise RunError(
            f"The profile {profile.name!r} divides the weights ({profile.sharding}), which training.adapter cannot.",
            hint="Set sharding: none: the frozen base fits every device, and the processes divide the data.",
        )
    if profile.sharding.startswith("zero-") and importlib.util.find_spec("deepspeed") is None:
        raise RunError(
            f"The profile {profile.name!r} shards with DeepSpeed, which is not installed.",
            hint="Run: pip install 'gshf-release[cluster]', or set sharding: fsdp",
        )


def split_batch(batch: int, micro_batch: int, processes: int, key: str = "batch_pairs") -> tuple[int, int]:
    """Return a process's micro-batch and how many of them it accumulates, so that a step has `batch` examples over all.

    Args:
        batch: Examples in an optimiser step.
        micro_batch: Examples of a process in one forward and backward pass, at most.
        processes: How many train together.
        key: What the recipe calls `batch`.

    Raises:
        RecipeError: The processes, or their micro-batches, do not divide the batch.
    """
    if batch % processes:
        raise RecipeError(
            f"{key} {batch} is not a multiple of the profile's {processes} training processes.",
            hint="Choose a number of processes that divides it: the recipe fixes the batch.",
        )
    share = batch // processes
    micro_batch = min(micro_batch, share)
    if share % micro_batch:
        of = "" if processes == 1 else f" in each of {processes} processes"
        raise RecipeError(
            f"{key} {batch} is not a multiple of the profile's micro_batch_pairs {micro_batch}{of}.",
            hint="Choose a micro-batch that divides it.",
        )
    return micro_batch, share // micro_batch


def arguments(sharding: str, processes: int, *, bf16: bool) -> dict[str, Any]:
    """Return the TrainingArguments of several processes; nothing for one.

    DeepSpeed is told to autocast rather than to hold BF16 weights, because iterations hand over FP32.
    """
    if processes == 1:
        return {}
    if sharding == "none":
        return {"ddp_find_unused_parameters": False}
    if sharding == "fsdp":
        return {"fsdp": True, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}
    return {"bf16": False, "deepspeed": deepspeed_config(int(sharding.removeprefix("zero-")), bf16=bf16)}


def deepspeed_config(stage: int, *, bf16: bool) -> dict[str, Any]:
    """Return DeepSpeed's configuration; `auto` is filled in from the other TrainingArguments."""
    automatic = (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    )
    return {
        **dict.fromkeys(automatic, "auto"),
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": stage == 3,
        },
        "zero_allow_untested_optimizer": True,
    }
