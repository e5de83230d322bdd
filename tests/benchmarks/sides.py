"""Two or more sides of a comparison, timed in turns in one run, so that a busy machine slows all of them.

Each benchmark prints its ratios, median and range over the repeats, and as its last line one JSON document.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click


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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the spread of how many times faster ours was, repeat by repeat."""
    return spread([other / own for own, other in zip(ours, theirs, strict=True)])


def report(name: str, goals: Mapping[str, float], seconds: Mapping[str, Sequence[float]], **facts: Any) -> None:
    """Print each side, its ratio to the first against the goal, and the JSON line.

    Args:
        name: Of the benchmark.
        goals: `{side: how many times faster the first side should be}`.
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
            entry["goal"] = goals.get(side)
            text += f" = {_shown(ratios(seconds[ours], values))} times {ours}"
            text += f", goal {goals[side]:g}" if side in goals else ""
        document["sides"][side] = entry
        click.echo(text)
    click.echo(json.dumps(document))


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in values.items()}


def _shown(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['least']:.3g} to {values['most']:.3g})"
