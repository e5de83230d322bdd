"""vLLM through this package's engine beside bare `LLM.generate`. Not a test: run it by hand, on a CPU or a GPU.

    gshf-release setup vllm
    python -m tests.benchmarks.vllm_engine
    python -m tests.benchmarks.vllm_engine --model FOLDER --scale 1 --cap 2048 --prompts 256 --batch 256

Requests as in `tests.benchmarks.sampling`: answers as long as a draw from the real ones, and no end token. Both sides get the
same prompts as ids, limits, seeds, batch and arithmetic. The bare side is `vllm.LLM` with vLLM's own defaults for everything
else. Each side is a process in vLLM's environment that starts the model once; prefixes it kept are forgotten before each run.
They run in turns, and the clock counts: vLLM computes in threads and processes of its own. MFU and limit as there.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.inputs import data_option, prepared
from tests.benchmarks.machine import hardware
from tests.benchmarks.sampling import draw_job, requests_of
from tests.benchmarks.sides import Side, in_turns, report

OURS, BARE = "this engine", "LLM.generate"
MEMORY_SHARE = 0.4
"""Of a GPU's memory, for each side: both are loaded at once."""


def engine_run(checkpoint: Path, wanted: list[Any], settings: dict[str, Any]) -> Callable[[], list[int]]:
    """Return a run of this package's engine, which returns the lengths that came."""
    from gshf_release.recipe.profile import Vllm
    from gshf_release.sampling.protocol import Decoding, Request
    from gshf_release.sampling.vllm_engine import VllmEngine

    engine = VllmEngine(
        checkpoint,
        dtype=settings["dtype"],
        batch=settings["batch"],
        cores=settings["cores"],
        settings=Vllm(
            context_tokens=settings["context"],
            compile=settings["compile"],
            cpu_cache_gb=settings["cache_gb"],
            memory_share=MEMORY_SHARE,
        ),
    )
    engine.stops, parameters = [], engine._parameters

    def without_end(request: Request) -> Any:
        found = parameters(request)
        found.ignore_eos = True
        return found

    engine._parameters = without_end  # type: ignore[method-assign]
    requests = [Request(prompt, Decoding(1.0, length), seed) for seed, (prompt, length) in enumerate(wanted)]

    def run() -> list[int]:
        engine._llm.reset_prefix_cache()
        return [len(done.ids) for done in engine.generate(requests, lambda done, total, unit: None)]

    return run


def bare_run(checkpoint: Path, wanted: list[Any], settings: dict[str, Any]) -> Callable[[], list[int]]:
    """Return a run of vLLM alone."""
    cores = settings["cores"]
    os.environ |= {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": str(settings["cache_gb"]),
    }
    from vllm import LLM, SamplingParams

    model = LLM(
        str(checkpoint),
        dtype=settings["dtype"],
        max_num_seqs=settings["batch"],
        max_model_len=settings["context"],
        enforce_eager=not settings["compile"],
        gpu_memory_utilization=MEMORY_SHARE,
    )
    prompts: Any = [{"prompt_token_ids": prompt} for prompt, _ in wanted]
    decodings = [
        SamplingParams(temperature=1.0, seed=seed, max_tokens=length, ignore_eos=True, detokenize=False)
        for seed, (_, length) in enumerate(wanted)
    ]

    def run() -> list[int]:
        model.reset_prefix_cache()
        return [len(done.outputs[0].token_ids) for done in model.generate(prompts, decodings, use_tqdm=False)]

    return run


RUNS = {OURS: engine_run, BARE: bare_run}


def runs(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Start and say so; then run, and tell the seconds."""
    wanted = [tuple(entry) for entry in settings["requests"]]
    run = RUNS[settings["side"]](Path(settings["checkpoint"]), wanted, settings)
    yield {}
    while True:
        begun = time.perf_counter()
        lengths = run()
        seconds = time.perf_counter() - begun
        assert lengths == [length for _, length in wanted]
        yield {"seconds": seconds}


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@data_option
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--threads", default=1, show_default=True, help="Cores, where there is no GPU.")
@click.option("--compile", is_flag=True, help="Let vLLM compile; without, both sides are eager.")
@click.option("--cache-gb", default=1, show_default=True, help="Of the KV cache, where there is no GPU.")
@click.option("--context", default=1024, show_default=True)
@click.option("--prompts", default=16, show_default=True)
@click.option("--samples", default=4, show_default=True, help="Answers to each prompt.")
@click.option("--scale", default=8, show_default=True)
@click.option("--cap", default=128, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    import torch

    from gshf_release import environments
    from gshf_release.errors import EngineError
    from gshf_release.models.checkpoints import load_model

    torch.set_num_threads(chosen["threads"])
    with tempfile.TemporaryDirectory() as name:
        checkpoint = prepared(chosen["model"], Path(name) / "model")
        parameters = load_model(checkpoint, "bf16").num_parameters()
        requests = requests_of(draw_job(checkpoint, chosen["data"], chosen))
        cores = sorted(os.sched_getaffinity(0))[-chosen["threads"] :]
        try:
            found = environments.require("vllm")
        except EngineError as error:
            click.echo(f"vllm_engine: not measured. {error}")
            return
        settings = chosen | {"checkpoint": checkpoint, "cores": cores, "requests": requests}
        variables = found.variables() | {"HF_HUB_OFFLINE": "1"}
        sides = {side: Side("vllm_engine", settings | {"side": side}, found.python, variables) for side in RUNS}
        for process in sides.values():
            process()  # to warm up
        seconds = in_turns(sides, chosen["repeats"])
        for process in sides.values():
            process.close()
    tokens, prompts = sum(length for _, length in requests), sum(len(prompt) for prompt, _ in requests)
    rates = hardware("cuda" if torch.cuda.is_available() else "cpu", getattr(torch, chosen["dtype"]))
    size = parameters * (2 if chosen["dtype"] == "bfloat16" else 4)
    limit = rates.sampled_at_most(parameters=parameters, weight_bytes=size, batch=chosen["batch"])
    click.echo(rates)
    for label, values in seconds.items():
        speed = tokens / statistics.median(values)
        mfu = 2 * parameters * speed * (tokens + prompts) / tokens / rates.flops
        click.echo(f"{label}: {speed:,.1f} tokens/s; MFU {mfu:.0%}; {speed / limit:.0%} of the limit")
    report("vllm_engine", seconds, tokens=tokens, requests=len(requests), batch=chosen["batch"])


if __name__ == "__main__":
    main()
