"""The numbers that follow from a row's judgments: score.json with the scorer's whole account, and the cells of the results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gshf_release.data import bootstrap, statistics
from gshf_release.data.bootstrap import JudgeNoise
from gshf_release.data.results import Cell
from gshf_release.evaluation import answer_files, answers, calibrated, comparisons, file_copies, metrics
from gshf_release.evaluation.alpaca_eval import annotations as annotation_rows
from gshf_release.evaluation.alpaca_eval import scoring
from gshf_release.evaluation.alpaca_eval.annotations import Annotation
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData, read_gamed, read_instructions
from gshf_release.evaluation.benchmarks import read_questions
from gshf_release.evaluation.calibration.document import load
from gshf_release.evaluation.judgments import (
    FILES,
    SCORE,
    JudgedRow,
    ScoreParameters,
    judgments_stage,
    own_file,
    repeat_files,
)
from gshf_release.evaluation.mt_bench import judgments as mt_bench_judgments
from gshf_release.evaluation.mt_bench import scoring as mt_bench_scoring
from gshf_release.evaluation.verdicts import reading
from gshf_release.prompts.benchmark_files import GAMED_BASELINES
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json


def write_score(context: StageContext) -> None:
    """Write the scorer's whole account, with its warnings."""
    scores = _scores(context, context.parameters(ScoreParameters))
    write_json(context.output(SCORE), {"scores": [asdict(score) for score in scores]})


def score_cells(context: StageContext) -> list[Cell]:
    """Return the cells of one row under one judge."""
    of = context.parameters(ScoreParameters)
    made = {"alpaca_eval_2": _alpaca_eval_cells, "mt_bench_single": _single_cells, "mt_bench_pair": _pair_cells}
    return made[of.kind](context, of, _place(context, of))


def annotation_repeats(context: StageContext, of: JudgedRow, row: str | None = None) -> list[list[Annotation]]:
    """Return the rows of every repeat of AlpacaEval's judgments of a row, by default the stage's own."""
    stage = judgments_stage(row or of.row, of.benchmark, of.label)
    return [annotation_rows.read(context.input(stage, file)) for file in repeat_files("alpaca_eval_2", of.repeats)]


def _judgments_file(context: StageContext, of: JudgedRow) -> Path:
    return context.input(judgments_stage(of.row, of.benchmark, of.label), FILES[of.kind])


def _place(context: StageContext, of: ScoreParameters) -> dict[str, Any]:
    return {
        "table": of.benchmark,
        "row": of.row,
        "decoding": of.decoding,
        "judge": of.judge,
        "baseline": of.baseline,
        "artefact": context.run.relative(_judgments_file(context, of)),
    }


def _scores(context: StageContext, of: ScoreParameters) -> list[Any]:
    if of.kind == "alpaca_eval_2":
        return [scoring.score(averaged(annotation_repeats(context, of)), _borrowed(context, of))]
    singles, pairs = mt_bench_judgments.read(_judgments_file(context, of))
    return (
        list(mt_bench_scoring.score(singles))
        if of.kind == "mt_bench_single"
        else list(mt_bench_scoring.score_pairs(pairs))
    )


def _borrowed(context: StageContext, of: ScoreParameters) -> AlpacaEvalData:
    """Return what the length-controlled fit borrows, from the run's own copies."""
    files = of.borrowed
    if files.gamed is None:
        return AlpacaEvalData(missing=files.missing)
    gamed, difficulty = read_gamed(file_copies.path(context.run, files.gamed))
    return AlpacaEvalData(
        gamed=gamed,
        difficulty=difficulty,
        instructions=read_instructions(file_copies.path(context.run, of.questions)),
        unverified=() if files.verified else (GAMED_BASELINES.name,),
    )


def _alpaca_eval_cells(context: StageContext, of: ScoreParameters, place: dict[str, Any]) -> list[Cell]:
    (score,) = _scores(context, of)
    repeats = annotation_repeats(context, of)
    limit, whole = of.note, of.whole
    doubts = Doubts(
        [row.doubts for rows in repeats for row in rows if row.preference is not None], sum(map(len, repeats))
    )
    length = statistics.mean([float(len(row.output_2)) for row in repeats[0]])
    rate = Cell(
        metric="win rate",
        value=score.win_rate,
        standard_error=score.standard_error,
        n=score.n_total,
        of=whole,
        unit="%",
        note=_joined(
            f"mean of {len(repeats)} judgments of each answer" if len(repeats) > 1 else "", doubts.note, limit
        ),
        **place,
    )
    return [
        rate,
        Cell(
            metric="LC win rate",
            value=score.length_controlled_winrate,
            standard_error=score.lc_standard_error,
            n=score.n_total,
            of=whole,
            unit="%",
            note=_joined(_length_control_note(score), doubts.note, limit),
            **place,
        ),
        Cell(
            metric="length",
            value=float(score.avg_length),
            standard_error=length.standard_error,
            n=len(repeats[0]),
            of=whole,
            unit="characters",
            note=limit,
            **place,
        ),
        Cell(
            metric=metrics.FAILED,
            value=float(score.n_null),
            n=score.n_total + score.n_null,
            of=whole,
            note=limit,
            **place,
        ),
        *doubts.cells(limit, place),
        *_answered_by_cells([row.answered_by for rows in repeats for row in rows], place),
        *_noise_cells(comparisons.alpaca_eval_noise(repeats), rate, place),
        *_calibrated_cells(context, of, rate, place),
    ]


class Doubts:
    """Records what makes one doubt the verdicts behind a row's numbers."""

    def __init__(self, judged: Sequence[Sequence[str]], total: int) -> None:
        """Count them.

        Args:
            judged: The doubts about each judgment that counts.
            total: How many judgments there are, the failed ones included.
        """
        self.total = total
        self.counts = reading.count(judged)
        self.note = "; ".join(reading.told(self.counts, total))

    def cells(self, note: str, place: Mapping[str, Any]) -> list[Cell]:
        """Return a cell for each."""
        return [
            Cell(metric=metrics.doubt(what), value=float(number), n=self.total, note=note, **place)
            for what, number in self.counts.items()
        ]


def _answered_by_cells(names: Sequence[str], place: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each model that the judge's server named, with the number of its judgments."""
    counts = Counter(name for name in names if name)
    return [
        Cell(metric=metrics.answered_by(name), value=float(count), n=len(names), **place)
        for name, count in sorted(counts.items())
    ]


def averaged(repeats: Sequence[Sequence[Annotation]]) -> list[Annotation]:
    """Return the rows of the first repeat with each preference the mean over all repeats that have one."""
    found = []
    for group in zip(*repeats, strict=True):
        known = [row.preference for row in group if row.preference is not None]
        found.append(replace(group[0], preference=math.fsum(known) / len(known) if known else None))
    return found


def _calibrated_cells(context: StageContext, of: ScoreParameters, rate: Cell, place: Mapping[str, Any]) -> list[Cell]:
    """Return the calibrated win rate where a calibration of the judge was kept."""
    if of.calibration is None:
        return []
    calibration = load(file_copies.path(context.run, of.calibration))
    return calibrated.cells(calibration, rate, of.baseline, of.calibration, place, of.note)


def _noise_cells(noise: JudgeNoise | None, number: Cell, place: Mapping[str, Any]) -> list[Cell]:
    """Return how much of a number's error comes from the judge's not repeating itself; nothing without repeats.

    The noise does not care how the items cluster, so its share is taken of the number's own squared standard error.
    """
    if noise is None:
        return []
    variance = noise.share * noise.standard_error**2
    error = number.standard_error or 0.0
    share = min(1.0, variance / error**2) if error > 0 else 0.0
    common = {"n": noise.judgments, **place}
    deviation = math.sqrt(noise.within_variance)
    return [
        Cell(
            metric=metrics.NOISE,
            value=deviation,
            unit=number.unit,
            note=f"of one judgment; {noise.items} items",
            **common,
        ),
        Cell(
            metric=metrics.NOISE_SHARE,
            value=100 * share,
            unit="%",
            note=f"of the squared standard error of {number.metric}; more repeats remove this part alone",
            **common,
        ),
    ]


def _interval_cells(
    metric: str, values: Mapping[Any, float], seed: int, unit: str, place: Mapping[str, Any]
) -> list[Cell]:
    """Return the ends of the 95 % interval of a pooled mean over questions; MT-Bench's questions are resampled whole."""
    names = [str(item[0]) for item in values]
    if len(set(names)) < 2:
        return []
    found = bootstrap.cluster_bootstrap(list(values.values()), names, seed=seed)
    note = f"{found.level:.0%} interval, bootstrap over questions"
    ends = {metrics.low(metric): found.low, metrics.high(metric): found.high}
    return [Cell(metric=name, value=end, n=len(values), unit=unit, note=note, **place) for name, end in ends.items()]


def _length_control_note(score: scoring.AlpacaEvalScore) -> str:
    if score.length_controlled_winrate is None:
        return f"none: {score.lc_reason}"
    explained = score.lc_label in (scoring.HYBRID, scoring.INCOMPLETE)
    told = f"{score.lc_label} ({score.lc_reason})" if explained else score.lc_label
    if score.lc_low is not None and score.lc_high is not None:
        told += f"; {score.lc_low:.2f} to {score.lc_high:.2f} over equally good regularisation strengths"
    return told + (f"; data {score.data}" if score.data.startswith("unverified") else "")


def _single_cells(context: StageContext, of: ScoreParameters, place: dict[str, Any]) -> list[Cell]:
    (score,) = _scores(context, of)
    singles, _ = mt_bench_judgments.read(_judgments_file(context, of))
    categories = {question.key: question.category for question in answers.stored_questions(context, place["table"])}
    limit, whole = of.note, _judgments_in_all(context, of)
    groups: dict[str, list[mt_bench_judgments.Judgment]] = {
        "average": singles,
        "first turn": [one for one in singles if one.turn == 1],
        "second turn": [one for one in singles if one.turn == 2],
    }
    for name in dict.fromkeys(categories.values()):
        groups[f"average: {name}"] = [one for one in singles if categories[str(one.question_id)] == name]
    doubts = Doubts([one.doubts for one in singles if one.parsed], len(singles))
    notes = {"average": _joined(doubts.note, limit)}
    found = [
        _rating_cell(metric, group, whole.get(metric), notes.get(metric, limit), place)
        for metric, group in groups.items()
    ]
    rated = mt_bench_scoring.ratings_of(singles)
    found += _interval_cells("average", rated, context.seed, "1-10", place)
    found += _noise_cells(comparisons.mt_bench_noise(rated), found[0], place)
    bound = f"lower bound of the average: {score.lower_bound:.2f}" if score.n_unparsed and score.lower_bound else ""
    failed = Cell(
        metric=metrics.FAILED,
        value=float(score.n_unparsed),
        n=score.n + score.n_unparsed,
        of=whole.get("average"),
        note=_joined(bound, limit),
        **place,
    )
    answered = _answered_by_cells([one.answered_by for one in singles], place)
    return [*found, failed, *doubts.cells(limit, place), *answered]


def _judgments_in_all(context: StageContext, of: ScoreParameters) -> dict[str, int]:
    """Return `{metric: judgments}` if every question were answered and judged."""
    questions = read_questions("mt_bench", file_copies.path(context.run, of.questions))
    groups = {"average": questions, "first turn": questions}
    for name in dict.fromkeys(question.category for question in questions):
        groups[f"average: {name}"] = [question for question in questions if question.category == name]
    found = {metric: sum(len(question.turns) for question in group) for metric, group in groups.items()}
    found["first turn"] = len(questions)
    found["second turn"] = found["average"] - len(questions)
    return {metric: count * of.repeats for metric, count in found.items()}


def _rating_cell(
    metric: str,
    judged: Sequence[mt_bench_judgments.Judgment],
    whole: int | None,
    note: str,
    place: Mapping[str, Any],
) -> Cell:
    values = [(one.question_id, one.score) for one in judged if one.parsed]
    return Cell(
        metric=metric,
        value=math.fsum(score for _, score in values) / len(values) if values else None,
        standard_error=mt_bench_scoring.question_error(values),
        n=len(values),
        of=whole,
        unit="1-10",
        note=note,
        **place,
    )


def _pair_cells(context: StageContext, of: ScoreParameters, place: dict[str, Any]) -> list[Cell]:
    _, pairs = mt_bench_judgments.read(_judgments_file(context, of))
    own = answer_files.model_of("mt_bench", own_file(context, of))
    score = next(score for score in mt_bench_scoring.score_pairs(pairs) if score.model == own)
    points = mt_bench_scoring.points_of(pairs, own)
    error = mt_bench_scoring.question_error([(question, value) for (question, _, _), value in points.items()])
    limit, whole = of.note, _judgments_in_all(context, of).get("average")
    doubts = Doubts([one.doubts for one in pairs if one.played], len(pairs))
    rates = {"win rate": score.win_rate, "loss rate": score.loss_rate}
    adjusted = Cell(
        metric="adjusted win rate",
        value=_percent(score.adjusted_win_rate),
        standard_error=error,
        n=score.n,
        of=whole,
        unit="%",
        note=_joined("a tie counts half", doubts.note, limit),
        **place,
    )
    return [
        adjusted,
        *_interval_cells("adjusted win rate", points, context.seed, "%", place),
        *_noise_cells(comparisons.mt_bench_noise(points), adjusted, place),
        *(
            Cell(metric=metric, value=_percent(value), n=score.n, of=whole, unit="%", note=limit, **place)
            for metric, value in rates.items()
        ),
        Cell(
            metric=metrics.FAILED,
            value=float(score.n_errors),
            n=score.n + score.n_errors,
            of=whole,
            note=limit,
            **place,
        ),
        *doubts.cells(limit, place),
        *_answered_by_cells([name for one in pairs for name in one.answered_by], place),
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
