"""Judgments of a benchmark's answers and the numbers that follow: stages apart from the answers.

    <row>/<benchmark>/<judge>/judgments   annotations.json as AlpacaEval writes it, or FastChat's judgment lines
    <row>/<benchmark>/<judge>/scores      score.json, and the cells of the results

A new judge makes no new answers and leaves the old judge's cells.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gshf_release import statistics
from gshf_release.benchmark_data import GAMED_BASELINES
from gshf_release.errors import RecipeError
from gshf_release.evaluation import answers, kept
from gshf_release.evaluation.alpaca_eval import annotations as annotation_rows
from gshf_release.evaluation.alpaca_eval import scoring
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData, read_gamed, read_instructions
from gshf_release.evaluation.benchmarks import Benchmark, read_json_lines
from gshf_release.evaluation.judging import alpaca_eval, mt_bench
from gshf_release.evaluation.judging.cache import default_folder
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.mt_bench import judgments as mt_bench_judgments
from gshf_release.evaluation.mt_bench import scoring as mt_bench_scoring
from gshf_release.evaluation.requests import BenchmarkRequest, BorrowedFiles, JudgeRequest, read
from gshf_release.results import Cell
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, write_json
from gshf_release.run.stage import Input, Stage

FILES = {"alpaca_eval_2": "annotations.json", "mt_bench_single": "single.jsonl", "mt_bench_pair": "pair.jsonl"}
"""What a judge of each kind writes."""
PROTOCOLS = {"alpaca_eval_2": "alpaca_eval", "mt_bench_single": "mt_bench", "mt_bench_pair": "mt_bench"}
SCORE = "score.json"
SPENDING, SPENDING_BEGINS = "judged", "judging begins"
"""Events of the journal."""


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


def declare(benchmark: str, asked: BenchmarkRequest, label: str, request: JudgeRequest, row: str) -> list[Stage]:
    """Declare a row's judgments by one judge, and their scores.

    Args:
        benchmark: The benchmark's name.
        asked: What is asked.
        label: The name of the judge's folder.
        request: The judge and its baseline.
        row: Whose answers.
    """
    judge = JudgeSettings.model_validate(request.judge)
    file = FILES[judge.benchmark]
    questions = Input(answers.questions_stage(benchmark), answers.QUESTIONS)
    own = Input(answers.answers_stage(row, benchmark), answers.FILES[asked.asking.protocol])
    place = {"benchmark": benchmark, "kind": judge.benchmark, "label": label, "row": row}
    judged = Stage(
        name=judgments_stage(row, benchmark, label),
        work="gshf_release.evaluation.judgments:judge",
        inputs=(questions, own),
        outputs=(file,),
        parameters={**place, **asked_of(judge, request), "questions": asked.questions},
    )
    scored = Stage(
        name=scores_stage(row, benchmark, label),
        work="gshf_release.evaluation.judgments:write_score",
        inputs=(questions, own, Input(judged.name, file)),
        outputs=(SCORE,),
        parameters={
            **place,
            "judge": judge.identity,
            "baseline": request.baseline_name,
            "borrowed": asked.borrowed.model_dump(mode="json"),
            "questions": asked.questions,
            "decoding": "as given" if row in asked.existing else asked.asking.label,
            "note": f"the first {asked.count} questions" if asked.limit is not None else "",
        },
        numbers="gshf_release.evaluation.judgments:numbers",
    )
    return [judged, scored]


def judge(context: StageContext) -> None:
    """Ask the judge about a row's answers and write what it said, in the form of the benchmark's own program.

    Raises:
        EngineError: The judge refuses, would cost more than is left of `judging.max_cost`, or fails too often.
        NetworkError: Its server gave up; the same command goes on without asking again what was answered.
    """
    kind, repeats = context.parameter("kind"), context.parameter("repeats")
    settings = _settings(context)
    path = context.output(FILES[kind])
    with _session(context, settings) as session:
        if kind == "alpaca_eval_2":
            rows = json.loads(_own_file(context).read_text(encoding="utf-8"))
            given = answers.alpaca_eval_answers(kept.path(context.run, context.parameter("baseline")))
            name = {"generator": context.parameter("baseline_name")}
            baseline = [given[row["instruction"]] | name for row in rows if row["instruction"] in given]
            judged = alpaca_eval.annotate(rows, baseline, session)
            answers.write_alpaca_eval(judged, path)
            return
        questions, rows = _asked_rows(context), read_json_lines(_own_file(context))
        references = mt_bench.read_references(settings.references) if _need_references(questions) else {}
        if kind == "mt_bench_single":
            lines = mt_bench.judge_single(questions, rows, session, references, repeats)
        else:
            name = {"model_id": context.parameter("baseline_name")}
            others = [line | name for line in read_json_lines(kept.path(context.run, context.parameter("baseline")))]
            lines = mt_bench.judge_pair(questions, rows, others, session, references)
        answers.write_mt_bench(lines, path)


def _settings(context: StageContext) -> JudgeSettings:
    """Return the judge as it was last asked for: where it is may have changed since the stage was declared."""
    place = [context.parameter(key) for key in ("benchmark", "label")]
    return JudgeSettings.model_validate(read(context.run).benchmarks[place[0]].judges[place[1]].judge)


@contextlib.contextmanager
def _session(context: StageContext, settings: JudgeSettings) -> Iterator[JudgeSession]:
    """Open the judge with what is left of the command's money; what it spends is written into the journal, come what may."""
    judging = context.profile.judging
    waits = context.run.short_lock("judging") if judging.max_cost is not None else contextlib.nullcontext()
    with waits:  # two workers at once would each spend what is left
        left = None if judging.max_cost is None else max(0.0, judging.max_cost - spent(context.run))
        session = JudgeSession(settings, default_folder(), max_cost=left, say=context.say, batch=judging.batch)
        try:
            yield session
        finally:
            told = session.spending
            context.log(SPENDING, cost=told.cost, asked=told.asked, cached=told.cached, failed=told.failed)


def begin_spending(run: RunDirectory) -> None:
    """Let the money that a command may spend count from now."""
    run.log(SPENDING_BEGINS)


def spent(run: RunDirectory) -> float:
    """Return the US dollars that judges have cost since the command began."""
    total = 0.0
    for entry in run.journal():
        if entry["event"] == SPENDING_BEGINS:
            total = 0.0
        elif entry["event"] == SPENDING:
            total += entry["cost"] or 0.0
    return total


def _own_file(context: StageContext) -> Path:
    place = (context.parameter("row"), context.parameter("benchmark"))
    protocol = PROTOCOLS[context.parameter("kind")]
    return context.input(answers.answers_stage(*place), answers.FILES[protocol])


def _asked_rows(context: StageContext) -> list[dict[str, Any]]:
    """Return the questions that were asked as the file of questions has them."""
    asked = {question.key for question in answers.stored_questions(context, context.parameter("benchmark"))}
    rows = read_json_lines(kept.path(context.run, context.parameter("questions")))
    return [row for row in rows if str(row["question_id"]) in asked]


def _need_references(questions: Sequence[Mapping[str, Any]]) -> bool:
    return any(question["category"] in mt_bench.NEEDS_REFERENCE for question in questions)


def asked_of(judge: JudgeSettings, request: JudgeRequest) -> dict[str, Any]:
    """Return what decides the judgments, for the fingerprint: not where the judge is, what it costs, how often it is tried."""
    decisive = {"name", "official", "annotator", "references", "model", "parameters", "context"}
    return {
        "judge": judge.model_dump(mode="json", include=decisive),
        "baseline": request.baseline,
        "baseline_name": request.baseline_name,
        "repeats": request.repeats,
    }


def write_score(context: StageContext) -> None:
    """Write the scorer's whole account, with its warnings."""
    write_json(context.output(SCORE), {"scores": [score.as_json() for score in _scores(context)]})


def numbers(context: StageContext) -> list[Cell]:
    """Return the cells of one row under one judge."""
    kind = context.parameter("kind")
    made = {"alpaca_eval_2": _alpaca_eval_cells, "mt_bench_single": _single_cells, "mt_bench_pair": _pair_cells}[kind]
    return made(context, _place(context))


def _judgments_file(context: StageContext) -> Path:
    stage = judgments_stage(*(context.parameter(key) for key in ("row", "benchmark", "label")))
    return context.input(stage, FILES[context.parameter("kind")])


def _place(context: StageContext) -> dict[str, Any]:
    return {
        "table": context.parameter("benchmark"),
        "row": context.parameter("row"),
        "decoding": context.parameter("decoding"),
        "judge": context.parameter("judge"),
        "baseline": context.parameter("baseline"),
        "artefact": context.run.relative(_judgments_file(context)),
    }


def _scores(context: StageContext) -> list[Any]:
    path, kind = _judgments_file(context), context.parameter("kind")
    if kind == "alpaca_eval_2":
        return [scoring.score(annotation_rows.read(path), _borrowed(context))]
    singles, pairs = mt_bench_judgments.read(path)
    return (
        list(mt_bench_scoring.score(singles))
        if kind == "mt_bench_single"
        else list(mt_bench_scoring.score_pairs(pairs))
    )


def _borrowed(context: StageContext) -> AlpacaEvalData:
    """Return what the length-controlled fit borrows, from the run's own copies."""
    files = BorrowedFiles(**context.parameter("borrowed"))
    if files.gamed is None:
        return AlpacaEvalData(missing=files.missing)
    gamed, difficulty = read_gamed(kept.path(context.run, files.gamed))
    return AlpacaEvalData(
        gamed=gamed,
        difficulty=difficulty,
        instructions=read_instructions(kept.path(context.run, context.parameter("questions"))),
        unverified=() if files.verified else (GAMED_BASELINES.name,),
    )


def _alpaca_eval_cells(context: StageContext, place: dict[str, Any]) -> list[Cell]:
    (score,) = _scores(context)
    rows = annotation_rows.read(_judgments_file(context))
    limit = context.parameter("note")
    judged = score.n_total - score.n_null
    length = statistics.mean([float(len(row.output_2)) for row in rows])
    return [
        Cell(
            metric="win rate",
            value=score.win_rate,
            standard_error=score.standard_error,
            n=judged,
            unit="%",
            note=limit,
            **place,
        ),
        Cell(
            metric="LC win rate",
            value=score.length_controlled_winrate,
            standard_error=score.lc_standard_error,
            n=judged,
            unit="%",
            note=_joined(_length_control_note(score), limit),
            **place,
        ),
        Cell(
            metric="length",
            value=float(score.avg_length),
            standard_error=length.standard_error,
            n=score.n_total,
            unit="characters",
            note=limit,
            **place,
        ),
        Cell(metric="failed judgments", value=float(score.n_null), n=score.n_total, note=limit, **place),
    ]


def _length_control_note(score: scoring.AlpacaEvalScore) -> str:
    if score.length_controlled_winrate is None:
        return f"none: {score.lc_reason}"
    told = score.lc_label if score.lc_label != scoring.HYBRID else f"hybrid ({score.lc_reason})"
    if score.lc_low is not None and score.lc_high is not None:
        told += f"; {score.lc_low:.2f} to {score.lc_high:.2f} over equally good regularisation strengths"
    return told + (f"; data {score.data}" if score.data.startswith("unverified") else "")


def _single_cells(context: StageContext, place: dict[str, Any]) -> list[Cell]:
    (score,) = _scores(context)
    singles, _ = mt_bench_judgments.read(_judgments_file(context))
    categories = {question.key: question.category for question in answers.stored_questions(context, place["table"])}
    limit = context.parameter("note")
    groups: dict[str, list[mt_bench_judgments.Judgment]] = {
        "average": singles,
        "first turn": [one for one in singles if one.turn == 1],
        "second turn": [one for one in singles if one.turn == 2],
    }
    for name in dict.fromkeys(categories.values()):
        groups[f"average: {name}"] = [one for one in singles if categories[str(one.question_id)] == name]
    found = [_rating_cell(metric, group, limit, place) for metric, group in groups.items()]
    bound = f"lower bound of the average: {score.lower_bound:.2f}" if score.n_unparsed and score.lower_bound else ""
    failed = Cell(
        metric="failed judgments",
        value=float(score.n_unparsed),
        n=score.n + score.n_unparsed,
        note=_joined(bound, limit),
        **place,
    )
    return [*found, failed]


def _rating_cell(
    metric: str, judged: Sequence[mt_bench_judgments.Judgment], note: str, place: Mapping[str, Any]
) -> Cell:
    by_question: dict[int, list[float]] = {}
    for one in judged:
        if one.parsed:
            by_question.setdefault(one.question_id, []).append(one.score)
    values = [value for group in by_question.values() for value in group]
    return Cell(
        metric=metric,
        value=math.fsum(values) / len(values) if values else None,
        standard_error=clustered_error(list(by_question.values())),
        n=len(values),
        unit="1-10",
        note=note,
        **place,
    )


def clustered_error(clusters: Sequence[Sequence[float]]) -> float | None:
    """Return the standard error of the pooled mean of values that come in clusters, here the turns of a question.

    It is the sandwich estimator with the factor G / (G - 1) for G clusters; with one value each, the usual standard error of a
    mean. None for fewer than two clusters.
    """
    count, groups = sum(map(len, clusters)), len(clusters)
    if groups < 2:
        return None
    mean = math.fsum(value for cluster in clusters for value in cluster) / count
    squares = math.fsum(math.fsum(value - mean for value in cluster) ** 2 for cluster in clusters)
    return math.sqrt(squares * groups / (groups - 1)) / count


def _pair_cells(context: StageContext, place: dict[str, Any]) -> list[Cell]:
    _, pairs = mt_bench_judgments.read(_judgments_file(context))
    own = answers.model_of("mt_bench", _own_file(context))
    score = next(score for score in mt_bench_scoring.score_pairs(pairs) if score.model == own)
    clusters: dict[int, list[float]] = {}
    for one in pairs:
        if "error" not in (one.winner_1, one.winner_2):
            clusters.setdefault(one.question_id, []).append(_points(one, own))
    error = clustered_error(list(clusters.values()))
    limit = context.parameter("note")
    rates = {"win rate": score.win_rate, "loss rate": score.loss_rate}
    return [
        Cell(
            metric="adjusted win rate",
            value=_percent(score.adjusted_win_rate),
            standard_error=_percent(error),
            n=score.n,
            unit="%",
            note=_joined("a tie counts half", limit),
            **place,
        ),
        *(
            Cell(metric=metric, value=_percent(value), n=score.n, unit="%", note=limit, **place)
            for metric, value in rates.items()
        ),
        Cell(metric="failed judgments", value=float(score.n_errors), n=score.n + score.n_errors, note=limit, **place),
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _points(one: mt_bench_judgments.PairJudgment, model: str) -> float:
    """Return 1 if both orders name the model, 0 if both name the other, else 1/2."""
    if one.winner_1 == "tie" or one.winner_1 != one.winner_2:
        return 0.5
    return float((one.model_1 if one.winner_1 == "model_1" else one.model_2) == model)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
