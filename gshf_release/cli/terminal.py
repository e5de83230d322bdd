"""Draw what the commands share: bars and lines of a run, tables, JSON alone on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gshf_release.data.printable import one_line, printable, printable_json

if TYPE_CHECKING:
    from gshf_release.data.results import Cell
    from gshf_release.report.tables import Table
    from gshf_release.run.directory import RunDirectory
    from gshf_release.run.stage import Task

SUMMARY_SECONDS = 30.0


def say(text: str) -> None:
    """Print a line for the user on stderr, leaving stdout to results."""
    click.echo(printable(text), err=True)


def show(text: str, *, nl: bool = True) -> None:
    """Print a result on stdout; what stands in it from outside moves no cursor and sets no colour."""
    click.echo(printable(text), nl=nl)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def profile_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--profile`."""
    text = "Where it runs: a name in training/profiles or a YAML file."
    return click.option("--profile", default="laptop", show_default=True, help=text)(function)


def data_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data`."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    text = "Folder with benchmark files [GSHF_BENCHMARK_DATA, the cache, the network]."
    return click.option("--data", type=folder, help=text)(function)


class Terminal:
    """An observer that draws a bar on a terminal, and one line a finished stage elsewhere."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.live = sys.stderr.isatty()
        self.position = ""
        self.start = "\r\x1b[2K" if self.live else ""
        """Of a line, which takes the place of the bar."""

    def started(self, task: Task, position: int, total: int) -> Callable[[int, int, str], None]:
        """Show the task that begins; return where it reports progress."""
        self.position = f"[{position}/{total}]"
        begun = last = time.monotonic()
        label = one_line(task.label)

        def progress(done: int, whole: int, unit: str) -> None:
            nonlocal last
            now = time.monotonic()
            if self.live:
                filled = int(24 * done / max(whole, 1))
                bar = "█" * filled + "░" * (24 - filled)
                click.echo(f"{self.start}{self.position} {label} {bar} {done}/{whole} {unit}", err=True, nl=False)
            elif now - last > SUMMARY_SECONDS:
                last = now
                say(f"{self.position} {label}: {done}/{whole} {unit} after {now - begun:.0f} s")

        if self.live:
            click.echo(f"{self.start}{self.position} {label} ...", err=True, nl=False)
        return progress

    def finished(self, task: Task, seconds: float) -> None:
        """Show the task that ended, and an iteration's summary after its last stage."""
        took = click.style(f"{seconds:.1f} s", dim=True)
        click.echo(f"{self.start}{self.position} {one_line(task.label)} {took}", err=True)
        if task.stage.name.endswith("/validation/measure"):
            self._summary(task)
        if task.stage.name == "prompts/pool":
            self._bad_rows()
        if task.stage.outputs == ("prompt.json",):
            self._first_prompt(task)
        if task.stage.name == "rendering":
            self._rendering()
        if task.stage.name.endswith("/model") and task.stage.numbers:
            self._scorer(task)

    def notice(self, text: str) -> None:
        """Show something the user should know, in place of the bar, which the next progress draws again."""
        click.secho(f"{self.start}{printable(text)}", fg="yellow", err=True)

    def _first_prompt(self, task: Task) -> None:
        from gshf_release.run.directory import read_json

        say(first_prompt(read_json(self.run.folder(task) / "prompt.json")))

    def _bad_rows(self) -> None:
        from gshf_release.run.directory import read_json

        bad = read_json(self.run.path / "prompts" / "pool" / "bad-rows.json")
        if bad["count"]:
            self.notice(f"  {bad['count']} bad row(s) skipped; the first: {bad['first'][0]}")

    def _rendering(self) -> None:
        from gshf_release.run.directory import read_json

        found = read_json(self.run.path / "rendering" / "rendering.json")
        bos = "no BOS" if found["bos"] == 0 else f"{found['bos']} BOS"
        tokens = "stay text" if found["control_tokens"] == "text" else "act as control tokens"
        text = f"prompts: {found['text']!r} ({bos}; control tokens inside messages {tokens})"
        click.secho(f"  {printable(text)}", bold=True, err=True)

    def _scorer(self, task: Task) -> None:
        from gshf_release.data.results import read_cells, shown

        cells = read_cells(self.run.results(task.stage))
        parts = [f"{cell.metric.removeprefix('held-out accuracy: ')} {shown(cell, 0)}%" for cell in cells]
        note = next((f" ({cell.note})" for cell in cells if cell.note), "")
        click.secho(printable(f"  {task.stage.name}, held-out accuracy: {', '.join(parts)}{note}"), bold=True, err=True)

    def _summary(self, task: Task) -> None:
        """Print one line on an iteration."""
        from gshf_release.data.results import read_cells

        row = task.stage.name.removesuffix("/validation/measure")
        cells = read_cells(self.run.results(task.stage))
        for name in (f"{row}.pairs", f"{row}.winners", f"{row}.policy"):
            path = self.run.path / "results" / f"{name}.json"
            cells += read_cells(path) if path.exists() else []
        click.secho(f"  {printable(summary(cells, row))}", bold=True, err=True)


def first_prompt(document: Mapping[str, Any]) -> str:
    """Return what is shown of a benchmark's first prompt: the text that the model reads, line by line."""
    lines = "\n".join(f"  | {line}" for line in document["text"].split("\n"))
    return f"  Question {document['question']} as the model reads it ({document['template']} template):\n{lines}"


def summary(cells: Sequence[Cell], row: str) -> str:
    """Return one line: reward, gain, KL, entropy, length, pairs, loss."""
    from gshf_release.data.results import find, shown
    from gshf_release.diagnostics.validation import EXCEEDED
    from gshf_release.models.logprobs import KL_TO_BASE

    def one(metric: str, digits: int = 2, **more: str) -> str:
        return shown(find(cells, row=row, metric=metric, **more), digits)

    parts = [f"{row}: reward {one('score', decoding='greedy')} greedy, {one('score', decoding='T=0.7')} at T=0.7"]
    if row != "base":
        parts.append(f"gain {one('gain over base', decoding='greedy')} and {one('gain over base', decoding='T=0.7')}")
        bound = find(cells, row=row, metric="best-of-n KL bound")
        beyond = " (beyond best of n)" if bound is not None and EXCEEDED in bound.note else ""
        parts.append(f"KL {one(KL_TO_BASE)}{beyond}")
    parts.append(f"entropy {one('entropy')}")
    parts.append(f"length {one('length', 0, decoding='T=0.7')} tokens, {one('cut', 0, decoding='T=0.7')}% cut")
    if row != "base":
        dropped = [cell for cell in cells if cell.metric.startswith("dropped: ")]
        reasons = ", ".join(f"{cell.value:.0f} {cell.metric.removeprefix('dropped: ')}" for cell in dropped)
        raft = find(cells, row=row, metric="winners") is not None
        kind, loss = ("winners", "loss") if raft else ("pairs", "DPO loss")
        parts.append(f"{one(kind, 0)} {kind}{f' (dropped: {reasons})' if reasons else ''}")
        parts.append(f"loss {one(f'{loss}, first step', 3)} → {one(f'{loss}, last quarter', 3)}")
        if find(cells, row=row, metric="NLL of the chosen, first step") is not None:
            steps = (one(f"NLL of the chosen, {step}", 3) for step in ("first step", "last quarter"))
            parts.append(f"NLL of the chosen {' → '.join(steps)}")
        parts.append(f"{one('weights changed after BF16', 0)}% of BF16 weights moved")
    return "; ".join(parts)


def print_table(table: Table) -> None:
    """Print a table on stdout, as wide as it needs when stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    header, *rows = ([one_line(text) for text in texts] for texts in (table.header, *table.rows))
    columns = zip(header, *rows, strict=True)
    needed = sum(max(len(text) for text in column) + 3 for column in columns)
    console = Console(width=None if sys.stdout.isatty() else max(200, needed), highlight=False, markup=False)
    drawn = RichTable(
        title=one_line(table.title), title_justify="left", title_style="bold", header_style="", pad_edge=False
    )
    for number, name in enumerate(header):
        drawn.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
    for note in table.notes:
        console.print(printable(note), style="dim")
    console.print()


def stale_line(run: RunDirectory) -> list[str]:
    """Return the line that stands before the numbers of a run whose recipe changed since they were made; nothing else."""
    from gshf_release.run import staleness

    found = staleness.find(run)
    return [] if found is None else [found.line]


def default_run(name: str) -> Path:
    """Return the run directory of a recipe's name."""
    return Path("runs") / name


def shown_path(path: Path) -> str:
    """Return a path as the user would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
