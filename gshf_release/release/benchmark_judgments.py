"""The judgments of benchmarks in the data set of judgments: the run's own answers and what the judge made of them.

What is somebody else's to publish stays out: the questions, the baseline's answers and the judge's words. Question and baseline
answer are there by their sha256, so that whoever has the benchmark can check them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data.records import Row
from gshf_release.evaluation import answer_files, answers, file_copies, judgments
from gshf_release.evaluation.alpaca_eval import annotations as annotation_rows
from gshf_release.evaluation.benchmarks import Question
from gshf_release.evaluation.judging.judges import Benchmark as Kind
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judgments import PROTOCOLS, JudgingParameters
from gshf_release.evaluation.mt_bench import judgments as mt_bench_judgments
from gshf_release.evaluation.mt_bench.scoring import points_of, ratings_of
from gshf_release.loop import policy_stage
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage, iteration_row

FOLDER = "benchmarks"
COLUMNS = {
    "benchmark": "its name",
    "iteration": "whose answer it is",
    "question": "row of AlpacaEval's file from 0, or MT-Bench's question id",
    "turn": "1, or 2 for the second question of MT-Bench",
    "question_sha256": "of the question in UTF-8, which is not part of the data",
    "answer": "the model's answer",
    "baseline": "whose answer it was compared with; none where answers were rated alone",
    "baseline_answer_sha256": "of the baseline's answer in UTF-8, which is not part of the data",
    "preference": "from 0 (the baseline's answer is better) to 1 (the model's is); none if rated alone or failed",
    "rating": "MT-Bench's 1 to 10; none if compared or failed",
    "judge": "who judged",
    "repeat": "number of the repetition, from 0",
    "policy_sha256": "FP32 weights of the policy that answered",
}


@dataclass(frozen=True, slots=True)
class BenchmarkJudgment(Row):
    """One published judgment of a benchmark; COLUMNS says what each column holds."""

    benchmark: str
    iteration: int
    question: str
    turn: int
    question_sha256: str
    answer: str
    baseline: str | None
    baseline_answer_sha256: str | None
    preference: float | None
    rating: float | None
    judge: str
    repeat: int
    policy_sha256: str


class PublishedStage(Parameters):
    """Say which judgments of which benchmark are published."""

    stage: str
    files: tuple[str, ...]
    iteration: int
    row: str
    benchmark: str
    kind: Kind
    baseline: str | None
    """sha256 of the baseline's answers, where the judge compares."""
    baseline_name: str
    judge: str


def benchmark_judgment_inputs(sources: Sequence[Stage], iterations: int) -> tuple[list[Input], list[PublishedStage]]:
    """Return what the data set reads of the benchmarks' judgments, and which they are.

    Args:
        sources: The stages of the run.
        iterations: How many it has; answers of others, the base among them, are not published.
    """
    numbers = {iteration_row(number): number for number in range(1, iterations + 1)}
    inputs: list[Input] = []
    judged: list[PublishedStage] = []
    for stage in sources:
        if stage.identity != judgments.IDENTITY or (of := stage.typed(JudgingParameters)).row not in numbers:
            continue
        inputs += [Input(stage.name, file) for file in stage.outputs]
        inputs.append(Input(answers.answers_stage(of.row, of.benchmark), answer_files.FILES[PROTOCOLS[of.kind]]))
        inputs.append(Input(answers.questions_stage(of.benchmark), answers.QUESTIONS))
        inputs.append(Input(policy_stage(numbers[of.row]), "model"))
        judged.append(
            PublishedStage(
                stage=stage.name,
                files=stage.outputs,
                iteration=numbers[of.row],
                row=of.row,
                benchmark=of.benchmark,
                kind=of.kind,
                baseline=of.baseline,
                baseline_name=of.baseline_name,
                judge=JudgeSettings.model_validate({**of.judge, "benchmark": of.kind}).identity,
            )
        )
    return list(dict.fromkeys(inputs)), judged


def write_benchmark_judgments(
    context: StageContext, judged: Sequence[PublishedStage], folder: Path
) -> list[tuple[str, str, str, int]]:
    """Write a file for each iteration that was judged; return `(benchmark, judge, baseline, rows)`."""
    counts: Counter[tuple[str, str, str]] = Counter()
    rows: dict[int, list[BenchmarkJudgment]] = {}
    for entry in judged:
        found = _rows(context, entry)
        counts[entry.benchmark, entry.judge, entry.baseline_name] += len(found)
        rows.setdefault(entry.iteration, []).extend(found)
    if rows:
        (folder / FOLDER).mkdir()
    for iteration, found in rows.items():
        BenchmarkJudgment.write(found, folder / FOLDER / f"{iteration_row(iteration)}.parquet")
    return [(*what, count) for what, count in counts.items()]


def _rows(context: StageContext, entry: PublishedStage) -> list[BenchmarkJudgment]:
    common: dict[str, Any] = {
        "benchmark": entry.benchmark,
        "iteration": entry.iteration,
        "judge": entry.judge,
        "policy_sha256": context.input_sha256(policy_stage(entry.iteration), "model"),
    }
    questions = _questions(context, entry.benchmark)
    paths = [context.input(entry.stage, file) for file in entry.files]
    if entry.kind == "alpaca_eval_2":
        return [row for repeat, path in enumerate(paths) for row in _compared(path, repeat, questions, common)]
    return _mt_bench(context, entry, paths[0], questions, common)


def _mt_bench(
    context: StageContext,
    entry: PublishedStage,
    path: Path,
    questions: Mapping[str, Question],
    common: Mapping[str, Any],
) -> list[BenchmarkJudgment]:
    """Return ratings of single answers, or games with a baseline."""
    own = context.input(answers.answers_stage(entry.row, entry.benchmark), answer_files.FILES["mt_bench"])
    given, others = answer_files.mt_bench_answers(own), {}
    if entry.baseline is not None:
        others = answer_files.mt_bench_answers(file_copies.path(context.run, entry.baseline))
    singles, pairs = mt_bench_judgments.read(path)
    points = points_of(pairs, answer_files.model_of("mt_bench", own))
    shares = {item: value / 100 for item, value in points.items()}
    judged: list[mt_bench_judgments.Judgment | mt_bench_judgments.PairJudgment] = [*singles, *pairs]
    ratings = ratings_of(singles)
    return [
        BenchmarkJudgment(
            question=str(one.question_id),
            turn=one.turn,
            question_sha256=_sha256(questions[str(one.question_id)].turns[one.turn - 1]),
            answer=_turn(given, one.question_id, one.turn),
            baseline=entry.baseline_name or None,
            baseline_answer_sha256=_sha256(_turn(others, one.question_id, one.turn)) if others else None,
            preference=shares.get((one.question_id, one.turn, one.repeat)),
            rating=ratings.get((one.question_id, one.turn, one.repeat)),
            repeat=one.repeat,
            **common,
        )
        for one in judged
    ]


def _compared(
    path: Path, repeat: int, questions: Mapping[str, Question], common: Mapping[str, Any]
) -> list[BenchmarkJudgment]:
    keys = {question.turns[0]: key for key, question in questions.items()}
    return [
        BenchmarkJudgment(
            question=keys[row.instruction],
            turn=1,
            question_sha256=_sha256(row.instruction),
            answer=row.output_2,
            baseline=row.generator_1,
            baseline_answer_sha256=_sha256(row.output_1),
            preference=row.win,
            rating=None,
            repeat=repeat,
            **common,
        )
        for row in annotation_rows.read(path)
    ]


def _turn(given: Mapping[str, Mapping[str, Any]], question: int, turn: int) -> str:
    return str(given[str(question)]["choices"][0]["turns"][turn - 1])


def _questions(context: StageContext, benchmark: str) -> dict[str, Question]:
    return {question.key: question for question in answers.stored_questions(context, benchmark)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
