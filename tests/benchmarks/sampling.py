"""How fast the transformers engine samples, beside transformers' own `generate` in static batches. Not a test: run it by hand.

    python -m tests.benchmarks.sampling                                  # quickstart's model, CPU or GPU
    python -m tests.benchmarks.sampling --former ../other-checkout       # the engine of another version as well
    python -m tests.benchmarks.sampling --model FOLDER --scale 1 --cap 2048 --prompts 256 --batch 64

The lengths of the answers are forced to a draw from the 805 real answers of AlpacaEval's reference, in tokens, divided by
`--scale` and cut at `--cap`; prompts are the first 1/scale tokens of real ones. No side knows a length beforehand: a request's
limit is its length and the end tokens are never hit, and limits decide no order anywhere (both engines and the static batches
sort by prompt length). A static batch runs to the longest of its answers; only the wanted tokens are counted.

Each side is a process of its own that loads the model once; they run in turns, so a busy machine slows all of them. Beside the
clock stand tokens per second of processor time, which a busy machine stretches less. Memory is the peak while sampling: of the
process on a CPU, of torch's allocator on a GPU. The hardware limit is what a full batch could reach if each step only read the
weights once at the measured bandwidth, or did its multiplications at the measured rate, whichever takes longer. MFU counts
2 x parameters operations for each token of a prompt (once a prompt) or answer, over the measured rate. On a CPU both go by
processor time.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.inputs import data_option, prepared
from tests.benchmarks.machine import Rates, forget_peak_memory, hardware, peak_memory
from tests.benchmarks.sides import Side, ratios, spread

ANSWERS = "alpaca_eval/reference_outputs_gpt4_1106_preview.json"
SIDES = {"engine": "this engine", "former": "former engine", "static": "generate, static", "paged": "generate_batch"}

Job = dict[str, Any]
Run = Callable[[], None]


def draw_job(checkpoint: Path, data: Path, settings: dict[str, Any]) -> Job:
    """Return the prompts' ids and the length of each of their answers."""
    from gshf_release.models.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    rows = json.loads((data / ANSWERS).read_text(encoding="utf-8"))
    scale, cap = settings["scale"], settings["cap"]
    lengths = [len(tokenizer(row["output"])["input_ids"]) for row in rows]
    lengths = [max(1, min(cap, length // scale)) for length in lengths]
    draw = random.Random(settings["seed"])
    prompts = []
    for row in draw.sample(rows, settings["prompts"]):
        ids = tokenizer(row["instruction"])["input_ids"][: cap * scale]
        prompts.append(ids[: max(4, len(ids) // scale)])
    wanted = [[draw.choice(lengths) for _ in range(settings["samples"])] for _ in prompts]
    return {"prompts": prompts, "lengths": wanted}


def requests_of(job: Job) -> list[tuple[list[int], int]]:
    return [
        (prompt, length) for prompt, lengths in zip(job["prompts"], job["lengths"], strict=True) for length in lengths
    ]


def engine_run(checkpoint: Path, job: Job, device: str, precision: Any, batch: int) -> tuple[Any, Run]:
    """Return the model and a run of the transformers engine, this version's or another's."""
    from gshf_release.sampling import Decoding, Request, TransformersEngine

    engine = TransformersEngine(checkpoint, precision=precision, device=device, batch=batch)
    engine.stops = [engine.model.config.vocab_size]  # an id that is never drawn
    wanted = [Request(prompt, Decoding(1.0, length), seed) for seed, (prompt, length) in enumerate(requests_of(job))]

    def run() -> None:
        found = engine.generate(wanted, lambda done, total, unit: None)
        assert [len(one.ids) for one in found] == [length for _, length in requests_of(job)]

    return engine.model, run


def static_run(checkpoint: Path, job: Job, device: str, precision: Any, batch: int) -> tuple[Any, Run]:
    """Return the model and a run of `generate` in static batches, sorted by the length of the prompt."""
    import torch
    from transformers import GenerationConfig

    from gshf_release.models.checkpoints import load_model

    model = load_model(checkpoint, precision, device)
    model.generation_config = GenerationConfig()
    ordered = sorted(requests_of(job), key=lambda pair: -len(pair[0]))

    def run() -> None:
        for first in range(0, len(ordered), batch):
            rows = ordered[first : first + batch]
            width, steps = max(len(prompt) for prompt, _ in rows), max(length for _, length in rows)
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in rows], device=device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in rows], device=device)
            config = GenerationConfig(max_new_tokens=steps, do_sample=True, top_k=0, pad_token_id=0)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            assert output.shape[1] == width + steps

    return model, run


def paged_run(checkpoint: Path, job: Job, device: str, precision: Any, batch: int) -> tuple[Any, Run]:
    """Return the model and a run of transformers' own continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    from gshf_release.models.checkpoints import load_model

    model = load_model(checkpoint, precision, device)
    wanted = requests_of(job)
    page = 32
    blocks = sum(-(-(len(prompt) + length) // page) for prompt, length in wanted)

    def run() -> None:
        paging = ContinuousBatchingConfig(
            page_size=page, num_blocks=blocks, max_batch_tokens=512, max_requests_per_batch=batch
        )
        config = GenerationConfig(max_new_tokens=max(length for _, length in wanted), do_sample=True, top_k=0)
        config.eos_token_id = -1
        found: dict[str, int] = {}
        with model.continuous_batching_context_manager(config, continuous_batching_config=paging) as manager:
            for number, (prompt, length) in enumerate(wanted):
                manager.add_request(prompt, request_id=str(number), max_new_tokens=length, eos_token_id=-1)
            while len(found) < len(wanted):
                if (result := manager.get_result(timeout=1)) is not None and result.is_finished():
                    found[result.request_id] = len(result.generated_tokens)
        assert [found[str(number)] for number in range(len(wanted))] == [length for _, length in wanted]

    return model, run


RUNS = {"engine": engine_run, "former": engine_run, "static": static_run, "paged": paged_run}


def runs(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Load, and tell of the model; then run, and tell seconds and memory."""
    if settings["side"] == "former":
        sys.path.insert(0, settings["former"])
        sys.dont_write_bytecode = True
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(settings["threads"])
    device = settings["device"]
    start, checkpoint = RUNS[settings["side"]], Path(settings["checkpoint"])
    model, run = start(checkpoint, settings["job"], device, settings["precision"], settings["batch"])
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    yield {"parameters": count, "bytes": weights, "dtype": str(model.dtype), "threads": torch.get_num_threads()}
    while True:
        forget_peak_memory(device)
        begun, used = time.perf_counter(), time.process_time()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        clock, processor = time.perf_counter() - begun, time.process_time() - used
        yield {"seconds": clock, "processor": processor, "gigabytes": peak_memory(device)}


def compared(ours: Sequence[float], theirs: Sequence[float], tokens: int) -> str:
    """Return a side's tokens/s and how many times as fast the first side is, run by run: median (range)."""
    speed, ratio = spread([tokens / seconds for seconds in theirs]), ratios(ours, theirs)
    return (
        f"{speed['median']:.1f} tokens/s ({speed['least']:.1f} to {speed['most']:.1f}),"
        f" this engine {ratio['median']:.2f}x ({ratio['least']:.2f} to {ratio['most']:.2f})"
    )


def report(sides: Sequence[Side], job: Job, rates: Rates, device: str) -> None:
    """Print one line for each side; ratios are of the first side to it, run by run."""
    lengths = [length for lengths in job["lengths"] for length in lengths]
    tokens, prompt_tokens = sum(lengths), sum(map(len, job["prompts"]))
    ours, about = sides[0], sides[0].about
    parameters, size, threads = about["parameters"], about["bytes"], about["threads"]
    print(
        f"{len(job['prompts'])} prompts of {prompt_tokens / len(job['prompts']):.0f} tokens (mean), {len(lengths)} answers of"
        f" {min(lengths)} to {max(lengths)}, mean {statistics.mean(lengths):.1f}, {tokens} in all; {about['dtype']},"
        f" {parameters / 1e6:.0f}M parameters, {threads} thread(s), load {os.getloadavg()[0]:.1f}"
    )
    print(rates)
    for side in sides:
        clock, processor, batch = side.measured("seconds"), side.measured("processor"), side.settings["batch"]
        seconds = statistics.median(clock) if device == "cuda" else statistics.median(processor) / threads
        mfu = 2 * parameters * (tokens + prompt_tokens) / seconds / rates.flops
        share = tokens / seconds / rates.sampled_at_most(parameters=parameters, weight_bytes=size, batch=batch)
        label = f"{SIDES[side.settings['side']]}, batch {batch}"
        print(f"{label}: peak {max(side.measured('gigabytes')):.2f} GB; MFU {mfu:.0%}; {share:.0%} of the limit")
        print(f"    clock     {compared(ours.measured('seconds'), clock, tokens)}")
        print(f"    processor {compared(ours.measured('processor'), processor, tokens)}")


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@data_option
@click.option("--former", type=click.Path(exists=True, resolve_path=True), help="A checkout whose engine runs as well.")
@click.option("--device", default="auto")
@click.option("--precision", default="auto", show_default=True, help="As `inference_precision` in a profile.")
@click.option("--threads", default=1, show_default=True)
@click.option("--prompts", default=64, show_default=True)
@click.option("--samples", default=4, show_default=True, help="Answers to each prompt.")
@click.option("--scale", default=16, show_default=True)
@click.option("--cap", default=128, show_default=True)
@click.option("--batch", default=32, show_default=True, help="Of the engines.")
@click.option("--static", default="8,32", show_default=True, help="Batches of `generate`.")
@click.option("--paged", is_flag=True, help="transformers' continuous batching too; needs minutes on a CPU.")
@click.option("--runs", default=3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(**options: Any) -> None:
    """Measure and print."""
    import torch

    from gshf_release.models.checkpoints import device_of, inference_precision, quiet_libraries

    quiet_libraries()
    torch.set_num_threads(options["threads"])
    device = device_of(options["device"])
    chosen = [("engine", options["batch"])]
    chosen += [("former", options["batch"])] if options["former"] else []
    chosen += [("static", int(batch)) for batch in options["static"].split(",")]
    chosen += [("paged", options["batch"])] if options["paged"] else []
    with tempfile.TemporaryDirectory() as name:
        checkpoint = prepared(options["model"], Path(name) / "model")
        job = draw_job(checkpoint, options["data"], options)
        settings = {"checkpoint": checkpoint, "job": job, "device": device, "threads": options["threads"]}
        settings |= {"precision": inference_precision(options["precision"], device), "former": options["former"]}
        sides = [Side("sampling", settings | {"side": side, "batch": batch}) for side, batch in chosen]
        rates = hardware(device, getattr(torch, sides[0].about["dtype"].removeprefix("torch.")))
        for _ in range(options["runs"]):
            for side in sides:
                side()
        for side in sides:
            side.close()
        report(sides, job, rates, device)


if __name__ == "__main__":
    main()
