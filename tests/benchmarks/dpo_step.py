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
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.inputs import answered, data_option, prepared
from tests.benchmarks.machine import forget_peak_memory, hardware, peak_memory
from tests.benchmarks.sides import Side, in_turns, processed, report, spread, timed

OURS, BEST, DEFAULTS = "this package", "TRL, best flags", "TRL, defaults"
Rows = list[dict[str, Any]]


def pairs_of(checkpoint: Path, data: Path, chosen: dict[str, Any]) -> Rows:
    """Return rows as TRL's collator reads them."""
    from gshf_release.models.checkpoints import load_tokenizer

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


def arguments_of(chosen: dict[str, Any], scratch: Path) -> Any:
    """Return a side's arguments of training: this package's, but for what the sides differ in."""
    from trl import DPOConfig

    from gshf_release.optimization.trainer import common_arguments

    side = chosen["side"]
    settings: dict[str, Any] = common_arguments(
        scratch=scratch,
        device=chosen["device"],
        batch=chosen["batch"],
        micro_batch=chosen["micro_batch"],
        examples=len(chosen["rows"]),
        learning_rate=1e-6,
        schedule="constant",
        warmup_share=0.0,
        precision=chosen["precision"],
        checkpoint_every=10**6,
    )
    settings |= {"save_strategy": "no", "max_length": None, "remove_unused_columns": False, "log_level": "error"}
    settings["precompute_ref_log_probs"] = side != DEFAULTS
    settings["gradient_checkpointing"] = chosen["checkpointing"] or side == DEFAULTS
    if side != OURS:
        settings["train_sampling_strategy"] = "group_by_length" if side == BEST else "random"
    return DPOConfig(**settings)


def trainer_of(chosen: dict[str, Any], scratch: Path) -> Any:
    """Return a side's trainer, ready to train over all rows once."""
    from datasets import Dataset

    from gshf_release.models.checkpoints import load_model, load_tokenizer
    from gshf_release.optimization.dpo import token_trainer
    from gshf_release.optimization.dropout import without_dropout
    from gshf_release.optimization.trainer import training_order
    from gshf_release.recipe import Training

    side, rows, checkpoint = chosen["side"], chosen["rows"], Path(chosen["checkpoint"])
    if side == OURS:
        lengths = [row["length"] for row in rows]
        keys = [row["prompt_id"] for row in rows]
        rows = [rows[index] for index in training_order(keys, lengths, epochs=1, batch=chosen["batch"], seed=0)]
    kept = ("prompt_ids", "chosen_ids", "rejected_ids", "length")
    kept += ("ref_chosen_logps", "ref_rejected_logps") if side != DEFAULTS else ()
    trainer_class = token_trainer(Training()) if side == OURS else _given_ids()
    return trainer_class(
        model=without_dropout(load_model(checkpoint, "fp32", chosen["device"])),
        ref_model=load_model(checkpoint, "fp32", chosen["device"]) if side == DEFAULTS else None,
        args=arguments_of(chosen, scratch),
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


def runs(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Be there; then train on all rows once, and tell of it."""
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(settings["threads"])
    yield {}
    while True:
        found = epoch(settings)
        gc.collect()
        yield found


def epoch(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of one epoch, the peak memory in 1e9 bytes and the parameters."""
    import torch
    from transformers import PrinterCallback

    from gshf_release.optimization.padding_free import without_padding

    device, lengths = chosen["device"], [row["length"] for row in chosen["rows"]]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_of(chosen, Path(scratch))
        trainer.remove_callback(PrinterCallback)
        forget_peak_memory(device)

        def train() -> None:
            trainer.train()
            if device == "cuda":
                torch.cuda.synchronize()

        with without_padding(trainer.model, lengths) if chosen["side"] == OURS else contextlib.nullcontext():
            seconds = processed(train) / chosen["threads"] if device == "cpu" else timed(train)
    parameters = trainer.model.num_parameters(exclude_embeddings=True)
    return {"seconds": seconds, "gigabytes": peak_memory(device), "parameters": parameters}


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@data_option
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

    from gshf_release.models.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    torch.set_num_threads(chosen["threads"])
    with tempfile.TemporaryDirectory() as name:
        checkpoint = prepared(chosen["model"], Path(name) / "model")
        rows = pairs_of(checkpoint, chosen["data"], chosen)
        settings = chosen | {"checkpoint": checkpoint, "rows": rows}
        sides = {side: Side("dpo_step", settings | {"side": side}) for side in (OURS, BEST, DEFAULTS)}
        seconds = in_turns(sides, chosen["repeats"])
        for process in sides.values():
            process.close()
    rates = hardware(chosen["device"], torch.bfloat16 if chosen["precision"] == "bf16" else torch.float32)
    tokens = sum(_tokens(row) for row in rows)
    click.echo(
        f"{len(rows)} pairs, prompt {sum(len(row['prompt_ids']) for row in rows) / len(rows):.0f} tokens, answer"
        f" {sum(len(row[key]) for row in rows for key in ('chosen_ids', 'rejected_ids')) / 2 / len(rows):.0f} (mean),"
        f" steps of {chosen['batch']}, {chosen['micro_batch']} at once, {chosen['precision']}"
    )
    memory = {label: round(max(process.measured("gigabytes")), 2) for label, process in sides.items()}
    for label, values in seconds.items():
        median = spread(values)["median"]
        use = rates.used(6 * sides[label].runs[0]["parameters"] * tokens, median)
        click.echo(f"{label}: {tokens / median:,.0f} tokens/s; {use}; peak {memory[label]:.2f} GB")
    report("dpo_step", seconds, tokens=tokens, pairs=len(rows), gigabytes=memory, device=chosen["device"])


if __name__ == "__main__":
    main()
