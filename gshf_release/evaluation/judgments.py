"""Judgments of a benchmark's answers, and the numbers that follow (scores.py): stages apart from the answers.

    <row>/<benchmark>/<judge>/judgments   annotations.json as AlpacaEval writes it, or FastChat's judgment lines
    <row>/<benchmark>/<judge>/scores      score.json, and the cells of the results

A new judge makes no new answers and leaves the old judge's cells.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gshf_release.errors import DataError, RecipeError
from gshf_release.evaluation import answer_files, answers, file_copies
from gshf_release.evaluation.benchmarks import Benchmark, read_json_rows
from gshf_release.evaluation.judging import alpaca_eval, endpoints, mt_bench
from gshf_release.evaluation.judging.batch import judge_in_batches
from gshf_release.evaluation.judging.cache import default_folder
from gshf_release.evaluation.judging.judges import Benchmark as Kind
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.requests import AskedAgain, BenchmarkRequest, BorrowedFiles, JudgeRequest, read_requests
from gshf_release.prompts import benchmark_files
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Input, Parameters, Stage

FILES = {"alpaca_eval_2": "annotations.json", "mt_bench_single": "single.jsonl", "mt_bench_pair": "pair.jsonl"}
"""What a judge of each kind writes."""
PROTOCOLS = {"alpaca_eval_2": "alpaca_eval", "mt_bench_single": "mt_bench", "mt_bench_pair": "mt_bench"}
SCORE = "score.json"
IDENTITY = "ask-judge/1"
SCORE_IDENTITY = "score-judgments/1"
SPENDING, SPENDING_BEGINS = "judged", "judging begins"
"""Events of the journal."""


class JudgedRow(Parameters):
    """Say whose answers a judge reads."""

    benchmark: str
    kind: Kind
    label: str
    """The name of the judge's folder."""
    row: str
    repeats: int


class JudgingParameters(JudgedRow):
    """Say also what the judge is asked."""

    judge: Mapping[str, Any]
    """Those of its settings that decide what it says; see `asked_of`."""
    baseline: str | None
    """sha256 of the baseline's answers; None where the judge rates single answers."""
    baseline_name: str
    questions: str
    """sha256 of the file of questions."""
    asked_again: AskedAgain | None
    """The request by which the judgments are made once more."""


class ScoreParameters(JudgedRow):
    """Say also how the cells of its numbers are described, and what they are computed with."""

    judge: str
    """What the cells call it."""
    baseline: str
    decoding: str
    note: str
    borrowed: BorrowedFiles
    questions: str
    """sha256 of the file of questions."""
    whole: int
    """How many questions that file has."""
    calibration: str | None
    """sha256 of the run's copy of the judge's calibration."""


def repeat_files(kind: str, repeats: int) -> tuple[str, ...]:
    """Return the files of a row's judgments: each repeat of AlpacaEval's has its own, so that alpaca_eval reads every one."""
    if kind != "alpaca_eval_2":
        return (FILES[kind],)
    return (FILES[kind], *(f"annotations-repeat-{repeat}.json" for repeat in range(1, repeats)))


def check_fits(benchmark: Benchmark, judge: JudgeSettings) -> None:
    """Refuse a judge that reads another benchmark's answers.

    Raises:
        RecipeError: Says which judge is of which kind.
    """
    if PROTOCOLS[judge.benchmark] != benchmark.protocol:
        raise RecipeError(
            f"The judge {judge.name} is one for {judge.benchmark}, the answers are those to {benchmark.name}.",
            hint="Name another with --judge.",
        )


def compares(judge: JudgeSettings) -> bool:
    """Return whether the judge compares two answers."""
    return judge.benchmark != "mt_bench_single"


def judgments_stage(row: str, benchmark: str, label: str) -> str:
    """Return the name of the stage of a row's judgments by one judge."""
    return f"{row}/{benchmark}/{label}/judgments"


def scores_stage(row: str, benchmark: str, label: str) -> str:
    """Return the name of the stage of the numbers that follow."""
    return f"{row}/{benchmark}/{label}/scores"


def declare_judgments(
    benchmark: str, asked: BenchmarkRequest, label: str, request: JudgeRequest, row: str
) -> list[Stage]:
    """Declare a row's judgments by one judge, and their scores.

    Args:
        benchmark: The benchmark's name.
        asked: What is asked.
        label: The name of the judge's folder.
        request: The judge and its baseline.
        row: Whose answers.
    """
    judge = JudgeSettings.model_validate(request.judge)
    files = repeat_files(judge.benchmark, request.repeats)
    questions = Input(answers.questions_stage(benchmark), answers.QUESTIONS)
    own = Input(answers.answers_stage(row, benchmark), answer_files.FILES[asked.asking.protocol])
    place = JudgedRow(
        benchmark=benchmark, kind=judge.benchmark, label=label, row=row, repeats=request.repeats
    ).model_dump()
    judged = Stage(
        name=judgments_stage(row, benchmark, label),
        identity=IDENTITY,
        work="gshf_release.evaluation.judgments:write_judgments",
        kind="judging",
        inputs=(questions, own),
        outputs=files,
        parameters=JudgingParameters(
            **place,
            judge=asked_of(judge),
            baseline=request.baseline,
            baseline_name=request.baseline_name,
            questions=asked.questions,
            asked_again=request.asked_again.get(row),
        ).as_json(),
    )
    scored = Stage(
        name=scores_stage(row, benchmark, label),
        identity=SCORE_IDENTITY,
        work="gshf_release.evaluation.scores:write_score",
        kind="other",
        inputs=(questions, own, *(Input(judged.name, file) for file in files)),
        outputs=(SCORE,),
        keys=("seed",),
        parameters=ScoreParameters(
            **place,
            judge=judge.identity,
            baseline=request.baseline_name,
            decoding="as given" if row in asked.existing else asked.asking.label,
            note=f"the first {asked.count} questions" if asked.limit is not None else "",
            borrowed=asked.borrowed,
            questions=asked.questions,
            whole=asked.whole,
            calibration=request.calibration,
        ).as_json(),
        numbers="gshf_release.evaluation.scores:score_cells",
    )
    return [judged, scored]


def write_judgments(context: StageContext) -> None:
    """Ask the judge about a row's answers and write what it said, in the form of the benchmark's own program.

    Raises:
        EngineError: The judge refuses, would cost more than is left of `judging.max_cost`, or fails too often.
        NetworkError: Its server gave up; the same command goes on without asking again what was answered.
    """
    of = context.parameters(JudgingParameters)
    settings = judge_of(context.run, context.task.stage)
    with _session(context, settings, of.asked_again) as session:
        if of.kind == "alpaca_eval_2":
            rows = json.loads(own_file(context, of).read_text(encoding="utf-8"))
            given = answer_files.alpaca_eval_answers(_baseline(context, of))
            name = {"generator": of.baseline_name}
            baseline = [given[row["instruction"]] | name for row in rows if row["instruction"] in given]
            for repeat, file in enumerate(repeat_files(of.kind, of.repeats)):
                judged = alpaca_eval.annotate(rows, baseline, session, repeat)
                answer_files.write_rows("alpaca_eval", judged, context.output(file))
            return
        questions, rows = _asked_rows(context, of), read_json_rows(own_file(context, of))
        references = _references(of, settings, questions)
        if of.kind == "mt_bench_single":
            lines = mt_bench.judge_single(questions, rows, session, references, of.repeats)
        else:
            name = {"model_id": of.baseline_name}
            others = [line | name for line in read_json_rows(_baseline(context, of))]
            lines = mt_bench.judge_pair(questions, rows, others, session, references, of.repeats)
        answer_files.write_rows("mt_bench", lines, context.output(FILES[of.kind]))


def _baseline(context: StageContext, of: JudgingParameters) -> Path:
    """Return the run's copy of the baseline's answers, which every judge has that compares."""
    return file_copies.path(context.run, str(of.baseline))


def judge_of(run: RunDirectory, stage: Stage) -> JudgeSettings:
    """Return the judge as it was last asked for: where it is may have changed since the stage was declared."""
    of = stage.typed(JudgingParameters)
    return JudgeSettings.model_validate(read_requests(run).benchmarks[of.benchmark].judges[of.label].judge)


@contextlib.contextmanager
def _session(context: StageContext, settings: JudgeSettings, again: AskedAgain | None) -> Iterator[JudgeSession]:
    """Open the judge with what is left of the command's money; what it spends is written into the journal, come what may."""
    endpoints.require(settings)
    judging = context.profile.judging
    waits = context.run.short_lock("judging") if judging.max_cost is not None else contextlib.nullcontext()
    with waits:  # two workers at once would each spend what is left
        left = None if judging.max_cost is None else max(0.0, judging.max_cost - spent(context.run))
        session = JudgeSession(
            settings,
            default_folder(),
            max_cost=left,
            say=context.say,
            batch=judge_in_batches if judging.batch else None,
            since=0.0 if again is None else again.since,
        )
        try:
            yield session
        finally:
            told = session.spending
            context.log(SPENDING, cost=told.cost, asked=told.asked, cached=told.cached, failed=told.failed)


def begin_spending(run: RunDirectory) -> None:
    """Let the money that a command may spend count from now."""
    run.log(SPENDING_BEGINS)


def unasked(run: RunDirectory, wanted: Sequence[str]) -> list[str]:
    """Return the stages of judgments that were finished before the command began, so that it asked no judge.

    Args:
        run: The run.
        wanted: The stages of scores that the command brought about.
    """
    done: set[str] = set()
    for entry in run.journal():
        if entry["event"] == SPENDING_BEGINS:
            done = set()
        elif entry["event"] == SPENDING:
            done.add(str(entry.get("stage")))
    return [name for name in behind(wanted) if name not in done]


def failed_before(run: RunDirectory, stage: str) -> int:
    """Return how many judgments of a finished stage failed, as its journal says."""
    told = [entry for entry in run.journal() if entry["event"] == SPENDING and entry.get("stage") == stage]
    return int(told[-1].get("failed") or 0) if told else 0


def behind(scores: Sequence[str]) -> list[str]:
    """Return the stages of the judgments that stages of scores read."""
    return [name.removesuffix("/scores") + "/judgments" for name in scores if name.endswith("/scores")]


def spent(run: RunDirectory) -> float:
    """Return the US dollars that judges have cost since the command began."""
    total = 0.0
    for entry in run.journal():
        if entry["event"] == SPENDING_BEGINS:
            total = 0.0
        elif entry["event"] == SPENDING:
            total += entry["cost"] or 0.0
    return total


def own_file(context: StageContext, of: JudgedRow) -> Path:
    """Return the answers that are judged."""
    return context.input(answers.answers_stage(of.row, of.benchmark), answer_files.FILES[PROTOCOLS[of.kind]])


def _asked_rows(context: StageContext, of: JudgingParameters) -> list[dict[str, Any]]:
    """Return the questions that were asked as the file of questions has them."""
    asked = {question.key for question in answers.stored_questions(context, of.benchmark)}
    rows = read_json_rows(file_copies.path(context.run, of.questions))
    return [row for row in rows if str(row["question_id"]) in asked]


def _references(
    of: JudgingParameters, settings: JudgeSettings, questions: Sequence[Mapping[str, Any]]
) -> dict[int, Mapping[str, Any]]:
    """Return the reference answers by question: a question of one's own brings them along, under `reference`.

    The published file of questions has some too, which FastChat does not read; its own questions keep the published answers.
    """
    needed = {row["question_id"] for row in questions if row["category"] in mt_bench.NEEDS_REFERENCE}
    if not needed:
        return {}
    own = {row["question_id"]: row for row in questions if _has_references(row)}
    if of.questions == benchmark_files.MT_BENCH.sha256:
        own = {}
    with contextlib.suppress(DataError):  # another file of that name; then a question's own reference is its best
        if own and (path := benchmark_files.find(benchmark_files.MT_BENCH)) is not None:
            published = {row["question_id"]: row["turns"] for row in read_json_rows(path)}
            own = {number: row for number, row in own.items() if published.get(number) != row["turns"]}
    known = mt_bench.read_references(settings.references) if needed - own.keys() else {}
    return {**known, **{number: {"choices": [{"turns": row["reference"]}]} for number, row in own.items()}}


def _has_references(question: Mapping[str, Any]) -> bool:
    """Return whether a question brings a reference answer for each of its turns."""
    given = question.get("reference")
    return (
        isinstance(given, list)
        and len(given) >= len(question["turns"])
        and all(isinstance(text, str) for text in given)
    )


def asked_of(judge: JudgeSettings) -> dict[str, Any]:
    """Return what decides the judgments, for the fingerprint: not where the judge is, what it costs, how often it is tried."""
    decisive = {"name", "official", "annotator", "references", "model", "parameters", "context"}
    if judge.benchmark == "alpaca_eval_2" and not judge.official:
        decisive.add("letter_share")
    return judge.model_dump(mode="json", include=decisive)
