"""First DPO steps of a tiny model on long answers, in processes that divide it.

`torchrun -m tests.optimization.fsdp_probe FOLDER [SHARDING]`: every rank writes what it saw into `rank-N.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gshf_release.errors import RunError
from gshf_release.models.batching import leave_processes
from gshf_release.optimization import fsdp
from gshf_release.recipe import Training
from gshf_release.run import launch
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.context import silent
from tests import tiny

TOKENS, PAIRS, SEEDS = 500, 4, (0, 1, 2)
SHAPE = {"max_position_embeddings": 1024, "hidden_size": 128, "num_hidden_layers": 4}


def policy(seed: int) -> Any:
    """Return a random model in FP32 whose weights, those of the norms too, are no BF16 numbers."""
    import torch

    model = tiny.model(seed, **SHAPE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.mul_(1 + 0.1 * torch.randn_like(weight))
    return model


def rows(seed: int, precision: str) -> list[dict[str, Any]]:
    """Return pairs of random answers with the log-probabilities that the reference stage gives them."""
    from gshf_release.models.logprobs import Tokens, completion_logps

    draw = random.Random(seed)
    prompt, *answers = ([draw.randrange(6, 512) for _ in range(count)] for count in (20, *[TOKENS] * 2 * PAIRS))
    sequences = [Tokens(prompt, answer) for answer in answers]
    logps = completion_logps(policy(seed), sequences, batch=2, workers=1, autocast=precision == "bf16")
    return [
        {
            "prompt_ids": prompt,
            "chosen_ids": answers[at],
            "rejected_ids": answers[at + 1],
            "ref_chosen_logps": logps[at],
            "ref_rejected_logps": logps[at + 1],
        }
        for at in range(0, 2 * PAIRS, 2)
    ]


def trainer(pairs: Sequence[dict[str, Any]], scratch: Path, seed: int, precision: str, sharding: str) -> Any:
    """Return the package's trainer of one optimiser step."""
    from datasets import Dataset
    from trl import DPOConfig

    from gshf_release.optimization.dpo import token_trainer
    from gshf_release.optimization.trainer import Resumable, common_arguments

    arguments = common_arguments(
        scratch=scratch,
        device="cpu",
        batch=PAIRS,
        micro_batch=1,
        examples=PAIRS,
        learning_rate=1e-3,
        schedule="constant",
        warmup_share=0.0,
        precision=precision,
        checkpoint_every=1,
        processes=launch.world_size(),
        sharding=sharding,
    )
    return token_trainer(Training())(
        model=policy(seed),
        args=DPOConfig(**arguments, max_length=None, precompute_ref_log_probs=True, gradient_checkpointing=False),
        train_dataset=Dataset.from_list(list(pairs)),
        processing_class=tiny.tokenizer(),
        callbacks=[Resumable(silent, CheckpointLayout(sharding, launch.world_size()))],
    )


def first_step(scratch: Path, seed: int, precision: str, sharding: str) -> dict[str, Any]:
    """Train one step; return its loss and margin, how the weights were divided, and what the trainer loaded and hashed."""
    from gshf_release.optimization.padding_free import without_padding
    from gshf_release.optimization.trainer import run_trainer

    pairs = rows(seed, precision)
    with counted() as calls:
        made = trainer(pairs, scratch, seed, precision, sharding)
    with without_padding(made.model, [20 + TOKENS]):
        (step,) = run_trainer(made, scratch, None, CheckpointLayout(sharding, launch.world_size()))
    return {
        "seed": seed,
        "precision": precision,
        "loss": step["loss"],
        "margin": step["rewards/margins"],
        "gradient_norm": step["grad_norm"],
        "distribution": fsdp.running(made)._asdict(),
        "parameters": sum(weight.numel() for weight in made.model.parameters()),
        "local_parameters": sum(getattr(weight, "_local_tensor", weight).numel() for weight in made.model.parameters()),
        "calls": calls,
    }


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Collect which models are loaded and hashed meanwhile."""
    from transformers import PreTrainedModel
    from trl.trainer import dpo_trainer

    calls: list[str] = []
    load, digest = PreTrainedModel.from_pretrained, dpo_trainer.hash_module
    PreTrainedModel.from_pretrained = lambda *_, **__: calls.append("load")
    dpo_trainer.hash_module = lambda *_: calls.append("hash")
    try:
        yield calls
    finally:
        PreTrainedModel.from_pretrained, dpo_trainer.hash_module = load, digest


def not_engaged(scratch: Path) -> dict[str, Any]:
    """Train as accelerate does if nobody tells it that a CPU may use FSDP; return what came instead of a step."""
    from gshf_release.optimization.trainer import run_trainer

    engage = fsdp._engage_on_cpu
    fsdp._engage_on_cpu = lambda _: None
    try:
        made = trainer(rows(0, "fp32"), scratch, 0, "fp32", "fsdp")
        run_trainer(made, scratch, None, CheckpointLayout("fsdp", launch.world_size()))
    except RunError as error:
        return {"error": str(error), "hint": error.hint, "steps": made.state.global_step}
    finally:
        fsdp._engage_on_cpu = engage
    return {"error": None, "hint": None, "steps": made.state.global_step}


def main(folder: Path, sharding: str) -> None:
    """Do all of it."""
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    asked = [("fp32", 0), *(("bf16", seed) for seed in SEEDS)]
    steps = [first_step(folder / f"{name}-{seed}", seed, name, sharding) for name, seed in asked]
    apart = not_engaged(folder / "apart") if sharding == "fsdp" else None
    document = json.dumps({"steps": steps, "not_engaged": apart})
    (folder / f"rank-{launch.rank()}.json").write_text(document, encoding="utf-8")
    leave_processes()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "fsdp")
    launch.end(0)
