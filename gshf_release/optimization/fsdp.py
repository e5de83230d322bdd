"""Engages FSDP where accelerate would drop it, keeps its numbers in FP32, and checks what really runs.

Three things go wrong without a word otherwise (accelerate 1.15, transformers 5.23):

- accelerate drops an FSDP plugin where the device is a CPU: each process trains the whole model, in plain data parallelism.
- In BF16 it lets FSDP2 round weights, outputs and the sums of gradients, and autocasts nothing. Log-probabilities of 500
  tokens, summed in BF16, are off by nats: a first DPO loss of 0.63 to 0.90 was seen where it is ln 2. With outputs and sums in
  FP32 it was 0.684 to 0.696: norms and embeddings, which autocast leaves alone, are still rounded, and so are activations.
- A checkpoint, of DeepSpeed too, holds the weights once more than anybody reads.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

from gshf_release.errors import RunError
from gshf_release.models.internals import require_internals
from gshf_release.run import launch
from gshf_release.run.checkpoint_layout import CheckpointLayout

MADE_FOR = "accelerate>=1.15,<2"
"""What pyproject.toml asks for: the versions whose state `_engage_on_cpu` knows."""
APART = "apart"
"""The sharding of processes that exchange nothing: each trains a model of its own."""


def distributed(trainer: type) -> Any:
    """Return one of transformers' trainers that divides weights as its arguments say, on a CPU too.

    FSDP holds, gathers and sums FP32; autocast rounds the inputs of matrix products to BF16, as it does in one process. So the
    losses of one process come out, for twice the bytes that gathering BF16 weights would take.

    Raises:
        RunError: This version of transformers makes its accelerator otherwise.
    """
    consequence = "FSDP would round to BF16, and train every process for itself on a CPU"
    require_internals("transformers", trainer, "_build_accelerator_args", consequence=consequence)

    class Distributed(trainer):  # type: ignore[misc]
        def _build_accelerator_args(self, **options: Any) -> dict[str, Any]:
            found: dict[str, Any] = super()._build_accelerator_args(**options)
            if found.get("fsdp_plugin") is not None:
                _keep_fp32(found["fsdp_plugin"])
                if self.args.device.type == "cpu":
                    _engage_on_cpu(found)
            return found

        def compute_loss_context_manager(self) -> Any:
            stack = contextlib.ExitStack()
            stack.enter_context(super().compute_loss_context_manager())
            if self.is_fsdp_enabled:  # accelerate wraps the forward pass of any other model in autocast
                stack.enter_context(_autocast(self.accelerator))
            return stack

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if _internal_call and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
                return  # a checkpoint: what FSDP or DeepSpeed writes beside this is what is read again
            super().save_model(output_dir, _internal_call)

    return Distributed


def _keep_fp32(plugin: Any) -> None:
    """Let FSDP2 gather weights, sum gradients and hand on activations as they are; accelerate makes all of it BF16."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # FSDP2 casts at the borders of modules, not by operation as autocast does: softmax would then compute in BF16
    # (https://github.com/pytorch/torchtitan/issues/700). A policy that is set is one that accelerate leaves alone.
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=None, reduce_dtype=torch.float32, output_dtype=torch.float32, cast_forward_inputs=False
    )


def _engage_on_cpu(accelerator_arguments: dict[str, Any]) -> None:
    """Make accelerate's state, which all accelerators of a process share, that of FSDP.

    `AcceleratorState` does the same itself, but only for a list of accelerators' types. The trainer's own accelerator, made of
    the same arguments right after, takes the state as it is.

    Raises:
        RunError: There is a GPU, which torch's FSDP would take instead.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    if torch.accelerator.is_available():
        raise RunError(
            "FSDP on the CPU of a machine with a GPU is not possible: torch divides the weights among the GPUs.",
            hint="Hide them (CUDA_VISIBLE_DEVICES=''), or set device: cuda in the profile.",
        )
    state = Accelerator(**accelerator_arguments).state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        state.fsdp_plugin = accelerator_arguments["fsdp_plugin"]


def _autocast(accelerator: Any) -> Any:
    """Return accelerate's autocast; without its cache, which would keep a BF16 copy of all weights that FSDP has put away.

    The cache did so in the first FSDP too: https://github.com/facebookresearch/fairscale/pull/650
    """
    from accelerate.utils import AutocastKwargs

    return accelerator.autocast(AutocastKwargs(cache_enabled=False))


def running(trainer: Any) -> CheckpointLayout:
    """Return how the processes of a prepared trainer divide its model, read from the model itself."""
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    model, processes = trainer.model_wrapped, int(trainer.accelerator.num_processes)
    wrapped = isinstance(model, FSDPModule)
    if wrapped and all(_in_parts(weight, processes) for weight in model.parameters()):
        return CheckpointLayout("fsdp", processes)
    if hasattr(model, "zero_optimization_stage"):  # DeepSpeed's engine
        return CheckpointLayout(f"zero-{model.zero_optimization_stage()}", processes)
    return CheckpointLayout(
        "none" if processes == 1 or isinstance(model, DistributedDataParallel) else APART, processes
    )


def _in_parts(weight: Any, processes: int) -> bool:
    """Return whether a weight is divided among all processes."""
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor) and weight.device_mesh.size() == processes


def require_distribution(wanted: CheckpointLayout, found: CheckpointLayout, device: str) -> None:
    """Check that a training is divided as its profile says.

    Args:
        wanted: By the profile.
        found: What `running` read from the model.
        device: Its type.

    Raises:
        RunError: They differ.
    """
    if found == wanted:
        return
    name = {"fsdp": "FSDP", "none": "Data parallelism"}.get(wanted.sharding, f"DeepSpeed's {wanted.sharding.upper()}")
    version = importlib.metadata.version("accelerate")
    instead = {
        "none": f"accelerate {version} ignores it on {device.upper()}, and each process holds the whole model",
        APART: f"accelerate {version} lets each process train a model of its own",
    }.get(found.sharding, f"the model is divided by {found}")
    raise RunError(
        f"{name} is not active on {wanted.processes} processes: {instead}.",
        hint=f"Install what this package was made for ({MADE_FOR}), or set another sharding in the profile.",
    )


def gather(trainer: Any, unsharded: Callable[[], Any]) -> Any:
    """Return the trained model with all its weights, or None on the ranks that do not write.

    Every process must call it: where the weights are divided among them, each has a part.

    Args:
        trainer: The finished trainer.
        unsharded: Loads a model of the same kind to put gathered weights into.
    """
    if not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        return trainer.accelerator.unwrap_model(trainer.model) if launch.rank() == 0 else None
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all ranks exchange: none may leave before it
    if launch.rank() > 0:
        return None
    _load_whole_models_again()
    model = unsharded()
    model.load_state_dict(weights)
    return model


def _load_whole_models_again() -> None:
    """End the time in which transformers, as ZeRO-3's arguments make it, divides every model it loads among the processes.

    On the one rank that goes on, the division would wait for the others for ever. The arguments set it for the whole process,
    and loading has no option against it: https://github.com/huggingface/transformers/issues/28106
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
