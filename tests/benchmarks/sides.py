"""Two or more sides of a comparison, timed in turns in one run, so that a busy machine slows all of them.

A side is a function, or a process that loads once and has its memory to itself (`Side`). Each benchmark prints its ratios,
median and range over the repeats, and as its last line one JSON document.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.inputs import REPOSITORY


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def processed(work: Callable[[], Any]) -> float:
    """Return the seconds of processor time that a call takes in this process, which a busy machine stretches less."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def in_turns(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return `{side: seconds of each repeat}`; every repeat takes each side once."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, measure in sides.items():
            found[side].append(measure())
    return found


class Side:
    """A side that is a process, in which `runs(settings)` of a benchmark is iterated over.

    The first thing that comes, when it is ready, is `about`; then each call is one run, of which `measured` tells.
    """

    def __init__(
        self, benchmark: str, settings: dict[str, Any], python: str | Path = sys.executable, variables: Any = os.environ
    ) -> None:
        self.name, self.settings = f"{benchmark}, {settings['side']}", settings
        self.process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.sides", benchmark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**variables, "PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
        )
        self.about = self._answer(json.dumps(settings, default=str))
        self.runs: list[dict[str, Any]] = []

    def __call__(self) -> float:
        """Run once, and return the seconds."""
        self.runs.append(self._answer("run"))
        return float(self.runs[-1]["seconds"])

    def measured(self, key: str) -> list[Any]:
        """Return what each run said of this."""
        return [run[key] for run in self.runs]

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()

    def _answer(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise click.ClickException(f"{self.name}: ended with {self.process.wait()}; its error is above.")
        found: dict[str, Any] = json.loads(answer)
        return found


def serve(benchmark: str) -> None:
    """Be the process of a `Side`: answer each line that comes in; what libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    runs = importlib.import_module(f"tests.benchmarks.{benchmark}").runs
    for answer in runs(json.loads(sys.stdin.readline())):
        print(json.dumps(answer), file=out, flush=True)
        if not sys.stdin.readline():
            break


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the spread of how many times faster ours was, repeat by repeat."""
    return spread([other / own for own, other in zip(ours, theirs, strict=True)])


def report(name: str, seconds: Mapping[str, Sequence[float]], **facts: Any) -> None:
    """Print each side, its ratio to the first, and the JSON line.

    Args:
        name: Of the benchmark.
        seconds: `{side: seconds of each repeat}`; the first is ours.
        facts: What else belongs to the measurement, such as sizes.
    """
    ours = next(iter(seconds))
    document: dict[str, Any] = {"benchmark": name, "load": round(os.getloadavg()[0], 1), **facts, "sides": {}}
    for side, values in seconds.items():
        entry: dict[str, Any] = {"seconds": _rounded(spread(values))}
        text = f"{side}: {_shown(spread(values))} s"
        if side != ours:
            entry["ratio"] = _rounded(ratios(seconds[ours], values))
            text += f" = {_shown(ratios(seconds[ours], values))} times {ours}"
        document["sides"][side] = entry
        click.echo(text)
    click.echo(json.dumps(document))


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in values.items()}


def _shown(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['least']:.3g} to {values['most']:.3g})"


if __name__ == "__main__":
    serve(sys.argv[1])
