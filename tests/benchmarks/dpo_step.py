"""DPO steps beside TRL's. Not a test: run it by hand, on a CPU or a GPU.

    python -m tests.benchmarks.dpo_step                                   # quickstart's model, short answers
    python -m tests.benchmarks.dpo_step --model FOLDER --scale 1 --pairs 512 --precision bf16

Pairs are two real answers to a prompt of AlpacaEval by two of the models at hand (`GSHF_TEST_DATA` or ../shared/data), in
tokens; of prompt and answers the first 1/scale tokens are kept, so lengths are distributed as the real ones. Whole optimiser
steps are timed: forward, backward, AdamW. The sides:

- this package's trainer: reference log-probabilities given, rows laid end to end;
- TRL with its best flags for this case: reference log-probabilities given, pairs grouped by length, checkpointing as ours;
- TRL's defaults: the reference computed at every step, activation checkpointing, random order.

All have the same pairs, batch, precision and rate, and the ids are given to all. Each side is a process of its own; they run in
turns. On a CPU seconds are the processor's over the threads. Tokens are those of prompt + chosen and prompt + rejected, without
padding. MFU counts six operations for each of them and each parameter outside the embeddings, over the rate of large matrix
products measured here; that rate is the limit too, for whole sequences are bound by arithmetic. Memory is the peak: of the
process on a CPU, of torch's allocator on a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.sampling import REPOSITORY, _forget_peak, _peak, hardware, prepared
from tests.benchmarks.scoring import answered
from tests.benchmarks.sides import in_turns, processed, report, spread, timed

OURS, BEST, DEFAULTS = "this package", "TRL, best flags", "TRL, defaults"
GOALS = {BEST: 1.2, DEFAULTS: 1.5}
Rows = list[dict[str, Any]]


def pairs_of(checkpoint: Path, data: Path, chosen: dict[str, Any]) -> Rows:
    """Return rows as TRL's collator reads them."""
    from gshf_release.checkpoints import load_tokenizer

    tokenizer, draw, scale = load_tokenizer(checkpoint), random.Random(chosen["seed"]), chosen["scale"]

    def ids(text: str, least: int) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found[: max(least, len(found) // scale)]

    rows = []
    for number, group in enumerate(draw.sample(answered(data), chosen["pairs"])):
        prompt = ids(group[0][0]["content"], 4)[: chosen["cap"]]
        first, second = (ids(turns[-1]["content"] or ".", 2)[: chosen["cap"]] for turns in draw.sample(group, 2))
        rows.append({"prompt_id": str(number), "prompt_ids": prompt, "chosen_ids": first, "rejected_ids": second})
    for row in rows:
        row |= {"ref_chosen_logps": -1.0, "ref_rejected_logps": -1.0, "length": _longest(row)}
    return rows


def _longest(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _tokens(row: dict[str, Any]) -> int:
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def trainer_of(side: str, checkpoint: Path, rows: Rows, chosen: dict[str, Any], scratch: str) -> Any:
    """Return a side's trainer, ready to train over all rows once."""
    from datasets import Dataset
    from trl import DPOConfig

    from gshf_release.checkpoints import load_model, load_tokenizer
    from gshf_release.optimization.common import without_dropout
    from gshf_release.optimization.dpo import token_trainer
    from gshf_release.resumption import common_arguments, training_order

    model = without_dropout(load_model(checkpoint, "fp32", chosen["device"]))
    settings: dict[str, Any] = common_arguments(
        scratch=Path(scratch),
        device=chosen["device"],
        batch=chosen["batch"],
        micro_batch=chosen["micro_batch"],
        examples=len(rows),
        learning_rate=1e-6,
        schedule="constant",
        warmup_share=0.0,
        precision=chosen["precision"],
        checkpoint_every=10**6,
    )
    settings |= {"save_strategy": "no", "max_length": None, "gradient_checkpointing": chosen["checkpointing"]}
    settings |= {"precompute_ref_log_probs": side != DEFAULTS, "remove_unused_columns": False, "log_level": "error"}
    if side == OURS:
        lengths = [row["length"] for row in rows]
        keys = [row["prompt_id"] for row in rows]
        rows = [rows[index] for index in training_order(keys, lengths, epochs=1, batch=chosen["batch"], seed=0)]
        trainer_class = token_trainer()
    else:
        trainer_class = _given_ids()
        settings["train_sampling_strategy"] = "group_by_length" if side == BEST else "random"
    if side == DEFAULTS:
        settings["gradient_checkpointing"] = True
    kept = ("prompt_ids", "chosen_ids", "rejected_ids", "length")
    kept += ("ref_chosen_logps", "ref_rejected_logps") if side != DEFAULTS else ()
    return trainer_class(
        model=model,
        ref_model=load_model(checkpoint, "fp32", chosen["device"]) if side == DEFAULTS else None,
        args=DPOConfig(**settings),
        train_dataset=Dataset.from_list([{key: row[key] for key in kept} for row in rows]),
        processing_class=load_tokenizer(checkpoint),
    )


def _given_ids() -> Any:
    """Return TRL's trainer, which only does not tokenise: ids and reference log-probabilities are there."""
    from trl import DPOTrainer

    class GivenIds(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
            return dataset

    return GivenIds


def be_a_side(side: str, checkpoint: Path, rows: Rows, chosen: dict[str, Any], channel: Connection) -> None:
    """Answer each message with the seconds of one epoch, the peak memory in 1e9 bytes and the parameters."""
    import torch
    from transformers import PrinterCallback

    from gshf_release.checkpoints import quiet_libraries
    from gshf_release.optimization.unpadded import without_padding

    quiet_libraries()
    torch.set_num_threads(chosen["threads"])
    device, lengths = chosen["device"], [row["length"] for row in rows]
    while channel.recv():
        with tempfile.TemporaryDirectory() as scratch:
            trainer = trainer_of(side, checkpoint, rows, chosen, scratch)
            trainer.remove_callback(PrinterCallback)
            _forget_peak(device)

            def train(trainer: Any = trainer) -> None:
                trainer.train()
                if device == "cuda":
                    torch.cuda.synchronize()

            with without_padding(trainer.model, lengths) if side == OURS else contextlib.nullcontext():
                seconds = processed(train) / chosen["threads"] if device == "cpu" else timed(train)
        parameters = trainer.model.num_parameters(exclude_embeddings=True)
        del trainer, train
        gc.collect()
        channel.send((seconds, _peak(device), parameters))


class Side:
    """A process that trains on demand."""

    def __init__(self, *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=be_a_side, args=(*given, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.gigabytes, self.parameters = 0.0, 0

    def __call__(self) -> float:
        self.channel.send(True)
        seconds, gigabytes, self.parameters = self.channel.recv()
        self.gigabytes = max(self.gigabytes, gigabytes)
        return float(seconds)

    def close(self) -> None:
        """Let the process end."""
        self.channel.send(False)
        self.process.join()


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@click.option("--data", type=click.Path(path_type=Path), help="Default: $GSHF_TEST_DATA or ../shared/data.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--checkpointing", is_flag=True, help="Activation checkpointing for the first two sides too.")
@click.option("--threads", default=1, show_default=True)
@click.option("--pairs", default=32, show_default=True)
@click.option("--batch", default=8, show_default=True, help="Pairs of an optimiser step.")
@click.option("--micro-batch", default=4, show_default=True, help="Pairs computed at once.")
@click.option("--scale", default=4, show_default=True)
@click.option("--cap", default=512, show_default=True, help="Tokens of a prompt, and of an answer, at most.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    import torch

    from gshf_release.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    data = chosen["data"] or Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    torch.set_num_threads(chosen["threads"])
    with tempfile.TemporaryDirectory() as name:
        checkpoint = prepared(chosen["model"], Path(name) / "model")
        rows = pairs_of(checkpoint, data, chosen)
        sides = {side: Side(side, checkpoint, rows, chosen) for side in (OURS, BEST, DEFAULTS)}
        seconds = in_turns(sides, chosen["repeats"])
        for side in sides.values():
            side.close()
    peak = hardware(chosen["device"], torch.bfloat16 if chosen["precision"] == "bf16" else torch.float32)["flops"]
    tokens = sum(_tokens(row) for row in rows)
    click.echo(
        f"{len(rows)} pairs, prompt {sum(len(row['prompt_ids']) for row in rows) / len(rows):.0f} tokens, answer"
        f" {sum(len(row[key]) for row in rows for key in ('chosen_ids', 'rejected_ids')) / 2 / len(rows):.0f} (mean),"
        f" steps of {chosen['batch']}, {chosen['micro_batch']} at once, {chosen['precision']}"
    )
    for label, values in seconds.items():
        done, speed = sides[label], tokens / spread(values)["median"]
        mfu = 6 * done.parameters * speed / peak
        click.echo(
            f"{label}: {speed:,.0f} tokens/s; MFU, and of the limit, {mfu:.0%} of {peak / 1e9:.0f} GFLOP/s; peak"
            f" {done.gigabytes:.2f} GB"
        )
    memory = {label: round(side.gigabytes, 2) for label, side in sides.items()}
    report("dpo_step", GOALS, seconds, tokens=tokens, pairs=len(rows), gigabytes=memory, device=chosen["device"])


if __name__ == "__main__":
    main()
