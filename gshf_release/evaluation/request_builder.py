"""From the words of a command to a request that the run remembers: files are found, checked and copied into the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gshf_release.data.hashing import sha256_json
from gshf_release.errors import NetworkError, RunError
from gshf_release.evaluation import (
    answer_files,
    answer_templates,
    answers,
    baselines,
    benchmarks,
    calibrated,
    file_copies,
    judgments,
    lm_eval_import,
    paired_comparisons,
)
from gshf_release.evaluation.benchmarks import Benchmark
from gshf_release.evaluation.judging import endpoints, judges
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.requests import (
    AskedAgain,
    BenchmarkRequest,
    BorrowedFiles,
    ImportRequest,
    JudgeRequest,
    Requests,
    read_requests,
    slug,
    with_judge,
    write_requests,
)
from gshf_release.prompts import benchmark_files
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage, Task

TOKENIZER = "tokenizer"
"""`--template tokenizer` goes back to the tokenizer's own."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """Says what the user asked for. None means the benchmark's own; of the template: as asked before, which is said."""

    benchmarks: tuple[str, ...]
    rows: tuple[str, ...]
    """Policies of the run that shall answer."""
    named_by_run: bool = False
    """Whether the benchmarks are those of the run's recipe, not of the command."""
    judge: str | None = None
    judge_overrides: tuple[str, ...] = ()
    """`key=value` of the judge's settings."""
    baseline: str | None = None
    template: str | None = None
    limit: int | None = None
    """Only the first questions; None and 0 ask all, whatever was asked before."""
    repeats: int = 1
    model: str | None = None
    """What `outputs` are called if they do not say it themselves; None takes the name of the file."""
    outputs: Path | None = None
    """Existing answers, which are judged instead of the rows'."""
    data: Path | None = None
    allow_unverified: bool = False
    calibration: Path | None = None
    """Of the judge; None takes the one in the cache, if there is one."""
    ask_again: Literal["failed", "all"] | None = None
    """Ask the judge once more, although it has judged: about what failed, or about everything."""


def _silent(text: str) -> None:
    """Say nothing."""


def request_evaluation(
    run: RunDirectory, options: EvaluationOptions, policies: Sequence[str], say: Callable[[str], None] = _silent
) -> list[str]:
    """Record what is asked for in the run, and return the names of the stages that do it.

    Args:
        run: The run.
        options: What is asked for.
        policies: Its rows in order of training.
        say: Hears what differs from the last request, and what is taken over from it.

    Raises:
        GshfError: A benchmark, judge, template or baseline does not exist or does not fit, or benchmark data cannot be had.
    """
    answer_templates.check(None if options.template == TOKENIZER else options.template)
    wanted: list[str] = []
    requests = read_requests(run)
    for reference in options.benchmarks:
        benchmark = benchmarks.load_benchmark(reference, run)
        known = requests.benchmarks.get(benchmark.name)
        asked = _request(run, benchmark, options, known)
        for line in _differences(benchmark.name, asked, known, options):
            say(line)
        rows = tuple(asked.existing) if options.outputs is not None else options.rows
        if not run.recipe.evaluation.only and set(asked.existing) & set(policies):
            raise RunError(f"{options.outputs}: its model has the name of a row of {run.path}.")
        judge = judges.load(options.judge or benchmark.judge, options.judge_overrides, run)
        endpoint = judge.ready()[1]
        own = None if options.named_by_run else reference
        if endpoints.is_given(options.judge, options.judge_overrides, own, benchmark.judge):
            endpoints.remember(endpoint)
        judgments.check_fits(benchmark, judge)
        baseline = _baseline(run, reference, benchmark, options, judge)
        label, request = _judge(run, options, judge, asked, rows, baseline)
        earlier = requests
        requests = with_judge(requests, benchmark.name, asked, label, request)
        wanted += [judgments.scores_stage(row, benchmark.name, label) for row in rows]
        judged = _judged(run, earlier, requests, benchmark.name, label)
        wanted += _comparable(requests, benchmark.name, label, {*rows, *judged}, policies)
    write_requests(run, requests)
    return wanted


def _comparable(requests: Requests, benchmark: str, label: str, judged: set[str], policies: Sequence[str]) -> list[str]:
    """Return the comparisons of rows that are judged already or now: none shall ask a judge about further rows."""
    found = paired_comparisons.others(requests.benchmarks[benchmark], label, policies)
    return [
        paired_comparisons.stage_name(row, benchmark, label)
        for row, others in found.items()
        if others and {row, *others} <= judged
    ]


def _judged(run: RunDirectory, earlier: Requests, now: Requests, benchmark: str, label: str) -> list[str]:
    """Return the rows whose judgments are there and still those that are asked for."""
    known, asked = earlier.benchmarks.get(benchmark), now.benchmarks[benchmark]
    if known is None or label not in known.judges or _decisive(known, label) != _decisive(asked, label):
        return []
    stages = {row: Stage(judgments.judgments_stage(row, benchmark, label), work="") for row in known.judges[label].rows}
    return [row for row, stage in stages.items() if run.manifest(Task(stage)) is not None]


def _decisive(asked: BenchmarkRequest, label: str) -> tuple[Any, ...]:
    """Return what, if it changes, makes a judge's earlier judgments others than those asked for."""
    request = asked.judges[label]
    judge = judgments.asked_of(JudgeSettings.model_validate(request.judge))
    compared = request.baseline, request.baseline_name, request.repeats
    return asked.asking, asked.questions, asked.limit, asked.template, judge, compared


def request_import(run: RunDirectory, path: Path, row: str, policies: Sequence[str]) -> list[str]:
    """Remember a result file of lm-evaluation-harness for a row and return the name of its stage.

    Raises:
        DataError: It is no such file.
        RunError: The run has no such row.
    """
    requests = read_requests(run)
    given = {name for request in requests.benchmarks.values() for name in request.existing}
    if row not in policies and row not in given:
        raise RunError(f"{run.path} has no row {row!r}.", hint=f"Its rows: {', '.join([*policies, *sorted(given)])}.")
    lm_eval_import.read_lm_eval_results(path)
    sha256 = file_copies.keep_file(run, path)
    name = f"{slug(row)}-{sha256[:8]}"
    entry = ImportRequest(sha256=sha256, row=row)
    write_requests(run, requests.model_copy(update={"imports": {**requests.imports, name: entry}}))
    return [f"imports/{name}"]


def prefetch(references: Sequence[str], say: Callable[[str], None]) -> tuple[dict[str, str], list[str]]:
    """Bring what benchmarks and their own judges need into the cache.

    Args:
        references: Names in eval/benchmarks, or files.
        say: Hears the name of each file before it is fetched.

    Returns:
        `{file: path}`, and why those could not be had that only the length-controlled win rate needs.

    Raises:
        DataError: What came is not the pinned file.
        NetworkError: A file could not be had.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    for benchmark in map(benchmarks.load_benchmark, references):
        say(f"{benchmark.name} ...")
        found[f"{benchmark.name} questions"] = str(benchmarks.questions_file(benchmark))
        found |= {file.name: str(benchmark_files.fetch(file)) for file in judges.load(benchmark.judge).files}
        if benchmark.protocol == "alpaca_eval" and benchmark.published:
            try:
                file = benchmark_files.GAMED_BASELINES
                found[file.name] = str(benchmark_files.obtain(file, allow_unverified=True).path)
            except NetworkError as error:
                missing.append(str(error))
    return found, missing


def _request(
    run: RunDirectory, benchmark: Benchmark, options: EvaluationOptions, known: BenchmarkRequest | None
) -> BenchmarkRequest:
    path = benchmarks.questions_file(benchmark, options.data)
    template = options.template if options.template is not None or known is None else known.template
    questions = benchmarks.read_questions(benchmark.protocol, path)
    whole = len(questions)
    limit = options.limit if options.limit and options.limit < whole else None
    existing, names = {}, {}
    if options.outputs is not None:
        model = answer_files.model_of(benchmark.protocol, options.outputs, options.model)
        row = _row_of(model, known)
        existing[row], names[row] = file_copies.keep_file(run, options.outputs), model
    return BenchmarkRequest(
        asking=benchmark.asking,
        questions=file_copies.keep_file(run, path),
        published=benchmark.published,
        count=limit or whole,
        whole=whole,
        turns=max(len(question.turns) for question in questions[:limit]),
        limit=limit,
        template=None if template == TOKENIZER else template,
        existing=existing,
        names=names,
        borrowed=_borrowed(run, benchmark, options),
    )


def _row_of(model: str, known: BenchmarkRequest | None) -> str:
    """Return the row of a model's answers; no two models share one, although their names may make one folder."""
    row = slug(model)
    taken = known.names.get(row) if known is not None else None
    return row if taken in (None, model) else f"{row}-{sha256_json(model)[:8]}"


def _differences(
    name: str, asked: BenchmarkRequest, known: BenchmarkRequest | None, options: EvaluationOptions
) -> list[str]:
    """Return what the user should hear before any work: how many questions are asked, and a template of an earlier request."""
    lines = []
    earlier = None if known is None else (f"the first {known.count}" if known.limit is not None else "all")
    if asked.limit is not None:
        more = "" if earlier in (None, f"the first {asked.count}") else f" The last request was for {earlier}."
        lines.append(f"{name}: only the first {asked.count} of {asked.whole} questions are asked.{more}")
    elif known is not None and known.limit is not None:
        lines.append(f"{name}: all {asked.whole} questions are asked. The last request was for {earlier}.")
    if options.template is None and asked.template is not None:
        lines.append(
            f"{name}: answers with the template {asked.template}, as in the last request; --template {TOKENIZER} takes the "
            "tokenizer's own."
        )
    return lines


def _borrowed(run: RunDirectory, benchmark: Benchmark, options: EvaluationOptions) -> BorrowedFiles:
    """Copy what the length-controlled win rate borrows into the run; that it cannot be had is no error."""
    if benchmark.protocol != "alpaca_eval" or not benchmark.published:
        return BorrowedFiles(missing="the questions are not AlpacaEval's")
    try:
        file = benchmark_files.GAMED_BASELINES
        found = benchmark_files.obtain(file, options.data, allow_unverified=options.allow_unverified)
    except NetworkError as error:
        return BorrowedFiles(missing=str(error))
    return BorrowedFiles(gamed=file_copies.keep_file(run, found.path), verified=found.verified)


def _baseline(
    run: RunDirectory, reference: str, benchmark: Benchmark, options: EvaluationOptions, judge: JudgeSettings
) -> Path | None:
    """Return the answers that the judge compares with; None is those of the questions' file, or none for single ratings."""
    if not judgments.compares(judge):
        if options.baseline is not None:
            raise RunError(f"The judge {judge.name} rates single answers and compares with no baseline.")
        return None
    if options.baseline is not None:
        return None if options.baseline == baselines.QUESTIONS else baselines.find_baseline(options.baseline, benchmark)
    if benchmark.baseline is None:
        raise RunError(f"The judge {judge.name} compares with a baseline.", hint="Name its answers with --baseline.")
    return baselines.of_benchmark(reference, run)


def _judge(
    run: RunDirectory,
    options: EvaluationOptions,
    judge: JudgeSettings,
    asked: BenchmarkRequest,
    rows: tuple[str, ...],
    baseline: Path | None,
) -> tuple[str, JudgeRequest]:
    """Return the name of the judge's folder and the request."""
    label, sha256, name = slug(judge.identity), None, ""
    if judgments.compares(judge):
        sha256 = asked.questions if baseline is None else file_copies.keep_file(run, baseline)
        otherwise = answers.QUESTIONS if baseline is None else baseline.name
        name = answer_files.model_of(
            asked.asking.protocol, file_copies.path(run, sha256), otherwise.partition(".")[0] or otherwise
        )
        if baseline is not None and name in _models(
            run, asked, rows
        ):  # two runs of one recipe, say, must not pass for one model
            name = f"{name}@{sha256[:8]}"
        if options.baseline is not None and sha256 != asked.questions:
            label = f"{label}-vs-{slug(name)}"
    request = JudgeRequest(
        judge=judge.model_dump(mode="json"),
        baseline=sha256,
        baseline_name=name,
        repeats=options.repeats,
        rows=rows,
        calibration=calibrated.keep_calibration(run, judge, options.calibration),
        asked_again=_again(options, rows),
    )
    return label, request


def _again(options: EvaluationOptions, rows: Sequence[str]) -> dict[str, AskedAgain]:
    return {} if options.ask_again is None else dict.fromkeys(rows, AskedAgain(what=options.ask_again, at=time.time()))


def _models(run: RunDirectory, asked: BenchmarkRequest, rows: Sequence[str]) -> set[str]:
    """Return what the answer files of the rows call their models."""
    given = {
        row: asked.names.get(row) or answer_files.model_of(asked.asking.protocol, file_copies.path(run, sha256))
        for row, sha256 in asked.existing.items()
    }
    return {given.get(row) or answers.model_name(run.recipe, row) for row in rows}
