"""Loop efficiency: which share of the time was sampling, scoring or training, and what the rest was. Read from the journal.

A second in which several tasks ran is divided evenly among them. A second of a command in which no task ran is `between`:
starting processes, checking finished files, waiting for the command itself; it belongs to the task that came next. Pauses in
which no command worked on the run are not counted, nor are commands that found nothing to do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gshf_release.run.stage import EVALUATION, PREPARATION, RELEASE, Kind, Stage

KINDS = ("sampling", "scoring", "training")
KIND_OF: Mapping[Kind, str] = {
    "sampling": "sampling",
    **dict.fromkeys(("scoring", "log-ratios", "reference", "measuring"), "scoring"),
    **dict.fromkeys(("training", "reward training"), "training"),
}
"""Scoring is every forward pass over given sequences. Time of other kinds is `other work`."""
ITERATIONS, WHOLE = "all iterations", "whole run"
PARTS = ("loading", "hashing", "cells")
REST = (*PARTS, "other work", "stopped", "between")
"""What is neither sampling, scoring nor training: loading of libraries and models; hashing of outputs; computing of result
cells; all other stages; attempts that did not come to their end; and time between tasks."""


@dataclass(slots=True)
class TimeShare:
    """Records where the time of one part of a run went, in seconds."""

    name: str
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*KINDS, *REST), 0.0))

    @property
    def wall(self) -> float:
        """All of it."""
        return sum(self.seconds.values())

    @property
    def efficiency(self) -> float:
        """The share that was sampling, scoring or training; 0 of nothing."""
        return sum(self.seconds[kind] for kind in KINDS) / self.wall if self.wall else 0.0


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The parts of a run in order, the sum of its iterations, and the whole."""

    rows: list[TimeShare]

    def row(self, name: str) -> TimeShare | None:
        """Return a row by its name."""
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True, slots=True)
class Span:
    """A task from its begin to its end, in seconds since the epoch."""

    stage: str
    begin: float
    end: float
    parts: Mapping[str, float]
    finished: bool = True


def measure_efficiency(journal: Sequence[Mapping[str, Any]], plan: Sequence[Stage]) -> Efficiency:
    """Return where the time of a run went.

    Args:
        journal: The run's entries, in the order in which they were written.
        plan: Its stages.
    """
    kinds = {stage.name: KIND_OF.get(stage.kind) for stage in plan}
    parts = {stage.name: stage.part for stage in plan}
    sessions = _sessions(journal)
    spans = _spans(journal, sessions)
    shares: dict[str, TimeShare] = {}
    for begin, end, active in _segments(spans, _wall(spans, sessions)):
        if active:
            for span in active:
                part = parts.get(span.stage, PREPARATION)
                share = shares.setdefault(part, TimeShare(part))
                _divide(share, span, (end - begin) / len(active), kinds.get(span.stage))
        else:
            name = parts.get(_next_to(spans, end).stage, PREPARATION)
            shares.setdefault(name, TimeShare(name)).seconds["between"] += end - begin
    rows = sorted(shares.values(), key=lambda row: _place(row.name))
    iterations = _sum(ITERATIONS, [row for row in rows if row.name.startswith("iteration ")])
    return Efficiency([*rows, iterations, _sum(WHOLE, rows)] if rows else [])


def efficiency_lines(found: Efficiency) -> list[str]:
    """Return the shares as a table, and the efficiency of the iterations."""
    if not found.rows:
        return []
    shown = [name for name in (*KINDS, *REST) if any(row.seconds[name] >= 0.05 for row in found.rows)]
    text = ["Where the time went, in percent (efficiency: sampling, scoring and training together):"]
    text.append(f"{'':15}{'seconds':>9}{'efficiency':>12}" + "".join(f"{name:>12}" for name in shown))
    for row in found.rows:
        if row.wall:
            shares = "".join(f"{100 * row.seconds[name] / row.wall:12.1f}" for name in shown)
            text.append(f"{row.name:15}{row.wall:9.1f}{100 * row.efficiency:12.1f}{shares}")
    loop = found.row(ITERATIONS)
    return [*text, f"Loop efficiency {100 * loop.efficiency:.1f} %."] if loop is not None and loop.wall else text


def as_json(found: Efficiency) -> dict[str, Any]:
    """Return the shares as JSON: `{part: {"wall", "efficiency", "seconds"}}`."""
    rows = {
        row.name: {
            "wall": round(row.wall, 3),
            "efficiency": round(row.efficiency, 4),
            "seconds": {name: round(value, 3) for name, value in row.seconds.items()},
        }
        for row in found.rows
    }
    return {"parts": rows}


def _sessions(journal: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return when each command worked on the run; one that was killed ends with the last that it wrote."""
    begun: dict[str, tuple[float, int]] = {}
    found = []
    for place, entry in enumerate(journal):
        if entry["event"] == "command begins":
            begun[entry["session"]] = (entry["time"], place)
        elif entry["event"] == "command ends" and entry["session"] in begun:
            found.append((begun.pop(entry["session"])[0], entry["time"]))
    for begin, place in begun.values():
        own = journal[place + 1 :]
        later = next((number for number, entry in enumerate(own) if entry["event"] == "command begins"), len(own))
        found.append((begin, max([begin, *(entry["time"] for entry in own[:later])])))
    return sorted(found)


def _spans(journal: Sequence[Mapping[str, Any]], sessions: Sequence[tuple[float, float]]) -> list[Span]:
    """Return every attempt at a task; one that did not finish ends with its command."""
    started: dict[str, float] = {}
    spans = []
    for entry in journal:
        label = str(entry.get("stage", ""))
        name, time = label.partition(" ")[0], float(entry["time"])
        if entry["event"] == "started":
            spans += _stopped(name, started.pop(label, None), sessions, time)
            started[label] = time
        elif entry["event"] == "finished":
            started.pop(label, None)
            spans.append(Span(name, time - float(entry["seconds"]), time, entry.get("parts", {})))
    for label, time in started.items():
        spans += _stopped(label.partition(" ")[0], time, sessions, float("inf"))
    return sorted(spans, key=lambda span: span.begin)


def _stopped(stage: str, begin: float | None, sessions: Sequence[tuple[float, float]], until: float) -> list[Span]:
    """Return the span of an attempt that began and did not finish, if its command is known."""
    ends = [end for start, end in sessions if begin is not None and start <= begin <= end]
    if begin is None or not ends:
        return []
    return [Span(stage, begin, min(*ends, until), {}, finished=False)]


def _wall(spans: Sequence[Span], sessions: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the stretches of time that count, in order and apart from each other."""
    working = [
        (begin, end) for begin, end in sessions if any(span.begin <= end and span.end >= begin for span in spans)
    ]
    found: list[tuple[float, float]] = []
    for begin, end in sorted([*working, *((span.begin, span.end) for span in spans)]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def _segments(spans: Sequence[Span], wall: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float, list[Span]]]:
    """Yield the wall time cut wherever a task begins or ends, with the tasks that run in each stretch."""
    ends = {time for pair in wall for time in pair}
    cuts = sorted({time for span in spans for time in (span.begin, span.end)} | ends)
    waiting, working, active = list(reversed(spans)), list(reversed(wall)), []
    for begin, end in pairwise(cuts):
        while working and working[-1][1] <= begin:
            working.pop()
        while waiting and waiting[-1].begin <= begin:
            active.append(waiting.pop())
        active = [span for span in active if span.end > begin]
        if working and working[-1][0] <= begin:
            yield begin, end, active


def _next_to(spans: Sequence[Span], time: float) -> Span:
    """Return the task that begins next after a moment, or the last one."""
    place = bisect_left(spans, time, key=lambda span: span.begin)
    return spans[min(place, len(spans) - 1)]


def _divide(row: TimeShare, span: Span, share: float, kind: str | None) -> None:
    """Add a task's part of the wall time to a row: its overheads in proportion, the rest to what it does."""
    if not span.finished:
        row.seconds["stopped"] += share
        return
    length = span.end - span.begin
    rest = share
    for part in PARTS:
        piece = min(rest, share * span.parts.get(part, 0.0) / length) if length else 0.0
        row.seconds[part] += piece
        rest -= piece
    row.seconds[kind or "other work"] += rest


def _sum(name: str, rows: Sequence[TimeShare]) -> TimeShare:
    total = TimeShare(name)
    for row in rows:
        for key, value in row.seconds.items():
            total.seconds[key] += value
    return total


def _place(name: str) -> tuple[int, int]:
    """Order the rows as a run goes."""
    if name.startswith("iteration "):
        return 1, int(name.partition(" ")[2])
    return {PREPARATION: 0, EVALUATION: 2, RELEASE: 3}[name], 0
