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

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.sampling import REPOSITORY, draw_job, hardware, prepared, requests_of
from tests.benchmarks.sides import in_turns, report

OURS, BARE = "this engine", "LLM.generate"
GOALS = {BARE: 0.9}
MEMORY_SHARE = 0.4
"""Of a GPU's memory, for each side: both are loaded at once."""


def engine_run(checkpoint: Path, wanted: list[Any], settings: dict[str, Any]) -> Callable[[], list[int]]:
    """Return a run of this package's engine, which returns the lengths that came."""
    from gshf_release.profile import Vllm
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


def be_a_side(side: str, checkpoint: Path, settings: dict[str, Any]) -> None:
    """Start, say so, then run once for each line that comes in, and answer with the seconds."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    wanted = [tuple(entry) for entry in settings["requests"]]
    run = RUNS[side](checkpoint, wanted, settings)
    print("started", file=out, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        lengths = run()
        print(time.perf_counter() - begun, file=out, flush=True)
        assert lengths == [length for _, length in wanted]


class Side:
    """A process in vLLM's environment."""

    def __init__(self, side: str, checkpoint: Path, settings: Path) -> None:
        from gshf_release import environments

        found = environments.require("vllm")
        self.process = subprocess.Popen(
            [str(found.python), "-m", "tests.benchmarks.vllm_engine", "--side", side, str(checkpoint), str(settings)],
            env=found.variables() | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"},
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __call__(self) -> float:
        assert self.process.stdin is not None
        print("run", file=self.process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise click.ClickException(f"A side ended with {self.process.wait()}; its error is above.")
        return line.strip()


@click.command()
@click.option("--model", help="A checkpoint folder; default: the quickstart's model.")
@click.option("--data", type=click.Path(path_type=Path), help="Default: $GSHF_TEST_DATA or ../shared/data.")
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
@click.option("--side", nargs=3, hidden=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    if chosen["side"]:
        side, folder, file = chosen["side"]
        be_a_side(side, Path(folder), json.loads(Path(file).read_text(encoding="utf-8")))
        return
    import torch

    from gshf_release.checkpoints import load_model
    from gshf_release.errors import EngineError

    data = chosen["data"] or Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    torch.set_num_threads(chosen["threads"])
    with tempfile.TemporaryDirectory() as name:
        checkpoint = prepared(chosen["model"], Path(name) / "model")
        parameters = load_model(checkpoint, "bf16").num_parameters()
        requests = requests_of(draw_job(checkpoint, data.resolve(), chosen))
        cores = sorted(os.sched_getaffinity(0))[-chosen["threads"] :]
        path = Path(name) / "settings.json"
        path.write_text(json.dumps(chosen | {"data": None, "cores": cores, "requests": requests}), encoding="utf-8")
        try:
            sides = {side: Side(side, checkpoint, path) for side in RUNS}
        except EngineError as error:
            click.echo(f"vllm_engine: not measured. {error}")
            return
        for side in sides.values():
            side()  # to warm up
        seconds = in_turns(sides, chosen["repeats"])
        for side in sides.values():
            side.close()
    tokens, prompts = sum(length for _, length in requests), sum(len(prompt) for prompt, _ in requests)
    rates = hardware("cuda" if torch.cuda.is_available() else "cpu", getattr(torch, chosen["dtype"]))
    size = parameters * (2 if chosen["dtype"] == "bfloat16" else 4)
    step = max(size / rates["bandwidth"], 2 * parameters * chosen["batch"] / rates["flops"])
    click.echo(f"hardware: {rates['flops'] / 1e9:.0f} GFLOP/s in matrices, reads {rates['bandwidth'] / 1e9:.1f} GB/s")
    for label, values in seconds.items():
        speed = tokens / statistics.median(values)
        mfu = 2 * parameters * speed * (tokens + prompts) / tokens / rates["flops"]
        share = speed * step / chosen["batch"]
        click.echo(f"{label}: {speed:,.1f} tokens/s; MFU {mfu:.0%}; {share:.0%} of the limit")
    report("vllm_engine", GOALS, seconds, tokens=tokens, requests=len(requests), batch=chosen["batch"])


if __name__ == "__main__":
    main()
