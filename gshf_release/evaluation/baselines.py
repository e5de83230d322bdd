"""Find the baseline's answers: from the words of a command or of a benchmark's file to a file of answers."""

from __future__ import annotations

from pathlib import Path

from gshf_release.errors import DataError
from gshf_release.evaluation import answer_files, benchmarks
from gshf_release.evaluation.benchmarks import Benchmark
from gshf_release.evaluation.requests import ascii_slug
from gshf_release.run import input_copies
from gshf_release.run.directory import DOCUMENT, RunDirectory

QUESTIONS = "questions"
"""The answers that stand in the file of the questions."""


def find_baseline(reference: str, benchmark: Benchmark) -> Path:
    """Return the answers that `--baseline` names.

    Args:
        reference: An answer file; a run, whose last row with answers it is; `RUN/ROW`; or a model that was evaluated before,
            whose run is `runs/eval-<model>`.
        benchmark: The benchmark whose answers are wanted.

    Raises:
        DataError: There are no such answers.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path
    file = answer_files.FILES[benchmark.protocol]
    for folder in (path, Path("runs") / f"eval-{ascii_slug(reference.replace('/', '--')).lower()}"):
        if (folder / DOCUMENT).is_file():
            found = sorted(folder.glob(f"*/{benchmark.name}/answers/{file}"), key=lambda entry: _order(entry.parts[-4]))
            if found:
                return found[-1]
        own = folder / benchmark.name / "answers" / file
        if (folder.parent / DOCUMENT).is_file() and own.is_file():
            return own
    raise DataError(
        f"--baseline {reference}: it is no file of answers, and no run has such answers to {benchmark.name}.",
        hint=f"Make them with: gshf-release eval {reference} --benchmark {benchmark.name}",
    )


def of_benchmark(reference: str, run: RunDirectory | None) -> Path | None:
    """Return the answers that a benchmark's file names, beside it or as `find` does; None stands for those of its questions.

    Args:
        reference: The benchmark: a name in eval/benchmarks, or a file.
        run: A run whose copy serves where the answers are gone.

    Raises:
        DataError: There are no such answers.
    """
    benchmark = benchmarks.load_benchmark(reference, run)
    named = benchmark.baseline
    if named in (None, QUESTIONS):
        return None
    beside = benchmarks.path_of(reference, run).parent / Path(named).expanduser()
    return input_copies.find_input(
        run, _key(reference), named, lambda: beside if beside.is_file() else find_baseline(named, benchmark)
    )


def keep_baseline(run: RunDirectory, reference: str) -> None:
    """Copy the answers that a benchmark's file names into the run, if they are there already."""
    named = benchmarks.load_benchmark(reference, run).baseline
    try:
        path = of_benchmark(reference, run)
    except DataError:
        return  # it is named when a judge must compare with it
    if named is not None and path is not None:
        input_copies.keep_input(run, _key(reference), named, path)


def _key(reference: str) -> str:
    return f"{benchmarks.input_key(reference)}.baseline"


def _order(row: str) -> tuple[int, str]:
    """Order rows as they were trained: a model of its own, the base, iterations by number."""
    number = row.removeprefix("iteration-")
    if number != row and number.isdigit():
        return (int(number) + 2, row)
    return (1 if row == "base" else 0, row)
