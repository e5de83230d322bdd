"""How time and memory grow from 1,000 to 60,000 prompts, in every stage that needs no trained model. No test: run it by hand.

    python -m tests.benchmarks.growth                                  # 1,000, 8,000 and 60,000 prompts
    python -m tests.benchmarks.growth --counts 500,2000 --repeats 1    # reduced

Each size is a process of its own, so that its memory is its own. Sampling comes from an engine that returns drawn ids at once
and the reward is a Python function; all else is what a run does: pool, split, rendering, samples, rewards, pairs, exploration,
with their records, hashes and cells. Growth is that of processor time, which a busy machine stretches less than the clock; the
parts of single stages are by the clock. The time of models is not in it, nor are reference log-probabilities, training and
validation, which compute with one. Deduplication, whose pairs grow with the square, has a benchmark of its own.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from gshf_release.sampling.protocol import Completion, Progress, Request
from tests.benchmarks.inputs import REPOSITORY
from tests.benchmarks.sides import spread

STAGES = ("samples", "rewards", "pairs", "exploration")
HELD_OUT = 8


class DrawnEngine:
    """An engine whose responses are drawn from the request's seed."""

    context_tokens = None

    def __init__(self, stops: list[int], vocabulary: int) -> None:
        self.stops = stops
        self.ordinary = [token for token in range(3, vocabulary) if token not in stops]

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        """Return 4 to 40 ids and an end for each."""
        found = []
        for request in requests:
            draw = random.Random(request.seed)
            found.append(Completion([*draw.choices(self.ordinary, k=draw.randint(4, 40)), self.stops[0]], "stop"))
        return found

    def close(self) -> None:
        """Hold nothing."""


def reward(conversations: list[list[dict[str, str]]]) -> list[float]:
    """Return the share of vowels in the answer."""
    answers = [conversation[-1]["content"] for conversation in conversations]
    return [sum(letter in "aeiou" for letter in answer) / max(1, len(answer)) for answer in answers]


def one(count: int, folder: Path) -> dict[str, Any]:
    """Run the stages for `count` prompts and return seconds by stage, and the most memory."""
    from gshf_release import pipeline, recipe
    from gshf_release.recipe import profile
    from gshf_release.run.directory import RunDirectory
    from gshf_release.run.execution import execute, seconds_spent
    from gshf_release.sampling import ENGINES
    from tests import tiny

    content = tiny.recipe(folder)
    rows = (
        json.dumps({"prompt": f"why is thing {number} good for number {number * 7}?"}) for number in range(count + 16)
    )
    (folder / "many.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    content["prompts"] |= {
        "source": str(folder / "many.jsonl"),
        "roles": {"per_iteration": count, "validation": HELD_OUT, "test": HELD_OUT},
    }
    content |= {"loop": {"iterations": 1}, "reward": {"model": "python:tests.benchmarks.growth:reward"}}
    content["sampling"] = {"n": 4, "max_new_tokens": 48, "prompts_per_shard": 256}
    chosen = recipe.parse(recipe.Recipe, content, "growth")
    ENGINES["transformers"] = lambda checkpoint, where: DrawnEngine([tiny.EOS], 300)
    run = RunDirectory.create(folder / "run", chosen, profile.Profile())
    stages = pipeline.build(chosen, run).train
    wanted = {f"iteration-1/{name}" for name in STAGES}
    before = [stage for stage in stages if stage.name.startswith("prompts/") or "/" not in stage.name]
    names = {stage.name for stage in before} | wanted | {"reward/model", "iteration-1/prompts"}
    begun = time.process_time()
    execute(stages, run, chosen, profile.Profile(), goal=[each for each in stages if each.name in names - {"final"}])
    seconds: dict[str, float] = {"all": time.process_time() - begun}
    for label, spent in seconds_spent(run).items():
        stage = label.partition(" ")[0]
        seconds[stage] = seconds.get(stage, 0.0) + spent
    return {"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def measured(count: int) -> dict[str, Any]:
    """Return what a process of its own says of one size."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.growth", "--one", str(count), "--folder", folder]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


@click.command()
@click.option("--counts", default="1000,8000,60000", show_default=True, help="Prompts, separated by commas.")
@click.option("--repeats", default=1, show_default=True)
@click.option("--one", "alone", type=int, hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(counts: str, repeats: int, alone: int | None, folder: Path | None) -> None:
    """Measure and print."""
    if alone is not None and folder is not None:
        click.echo(json.dumps(one(alone, folder)))
        return
    sizes = [int(part) for part in counts.split(",")]
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            found[size].append(measured(size))
    document: dict[str, Any] = {
        "benchmark": "growth",
        "load": round(os.getloadavg()[0], 1),
        "sizes": {},
        "exponents": {},
    }
    for size, runs in found.items():
        seconds, memory = spread([run["seconds"]["all"] for run in runs]), max(run["gigabytes"] for run in runs)
        parts = {name: round(min(run["seconds"][name] for run in runs), 2) for name in runs[0]["seconds"]}
        document["sizes"][size] = {"seconds": seconds, "gigabytes": round(memory, 3), "stages": parts}
        click.echo(f"{size:,} prompts: {seconds['median']:.1f} s, {memory:.2f} GB; {parts}")
    for small, large in pairwise(sizes):
        growths = [
            math.log(after["seconds"]["all"] / before["seconds"]["all"]) / math.log(large / small)
            for before, after in zip(found[small], found[large], strict=True)
        ]
        document["exponents"][f"{small} to {large}"] = spread(growths)
        click.echo(f"exponent from {small:,} to {large:,}: {spread(growths)['median']:.3f}")
    click.echo(json.dumps(document))


if __name__ == "__main__":
    main()
