"""Rows of one judge compared on the same prompts: each with the first row (the base) and with the row before it.

    <row>/<benchmark>/<judge>/comparisons   comparisons.json, and the cells of the results

A stage apart from the scores: another row to compare with leaves a row's own numbers as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gshf_release.data.results import Cell
from gshf_release.errors import DataError
from gshf_release.evaluation import answer_files, answers, comparisons, metrics
from gshf_release.evaluation.comparisons import Comparison
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judgments import FILES, PROTOCOLS, JudgedRow, judgments_stage, repeat_files
from gshf_release.evaluation.mt_bench import judgments as mt_bench_judgments
from gshf_release.evaluation.mt_bench import scoring as mt_bench_scoring
from gshf_release.evaluation.requests import BenchmarkRequest, JudgeRequest, rows_known
from gshf_release.evaluation.scores import annotation_repeats, averaged
from gshf_release.run.context import StageContext
from gshf_release.run.directory import write_json
from gshf_release.run.stage import Input, Stage

IDENTITY = "compare-models/1"
FILE = "comparisons.json"
MEASURE = {"alpaca_eval_2": "win rate", "mt_bench_single": "average", "mt_bench_pair": "adjusted win rate"}
UNIT = {"alpaca_eval_2": "%", "mt_bench_single": "1-10", "mt_bench_pair": "%"}


class PairedParameters(JudgedRow):
    """Say also which rows it is compared with, and how the cells are described."""

    others: tuple[str, ...]
    judge: str
    baseline: str
    decoding: str


def stage_name(row: str, benchmark: str, label: str) -> str:
    """Return the name of the stage that compares a row with others by one judge."""
    return f"{row}/{benchmark}/{label}/comparisons"


def others(asked: BenchmarkRequest, label: str, policies: Sequence[str]) -> dict[str, list[str]]:
    """Return `{row: the rows it is compared with}` of one judge: the first, and the one before it.

    Args:
        asked: The benchmark.
        label: The name of the judge's folder.
        policies: The run's own rows in order of training; rows of given answers come after them.
    """
    judged = rows_known(asked.judges[label].rows, policies, asked.existing)
    order = [*(row for row in policies if row in judged), *(row for row in judged if row not in policies)]
    return {row: list(dict.fromkeys([order[0], order[place - 1]])) if place else [] for place, row in enumerate(order)}


def declare_paired_comparisons(
    benchmark: str, asked: BenchmarkRequest, label: str, request: JudgeRequest, policies: Sequence[str]
) -> list[Stage]:
    """Declare the comparisons of one judge's rows; the first row has none."""
    judge = JudgeSettings.model_validate(request.judge)
    return [
        _declare_row(benchmark, asked, label, request, judge, row, compared)
        for row, compared in others(asked, label, policies).items()
        if compared
    ]


def _declare_row(
    benchmark: str,
    asked: BenchmarkRequest,
    label: str,
    request: JudgeRequest,
    judge: JudgeSettings,
    row: str,
    compared: list[str],
) -> Stage:
    files = repeat_files(judge.benchmark, request.repeats)
    inputs = [Input(judgments_stage(each, benchmark, label), file) for each in (row, *compared) for file in files]
    if judge.benchmark == "mt_bench_pair":  # the answers say which of the two models is the row's
        file = answer_files.FILES[asked.asking.protocol]
        inputs += [Input(answers.answers_stage(each, benchmark), file) for each in (row, *compared)]
    return Stage(
        name=stage_name(row, benchmark, label),
        identity=IDENTITY,
        work="gshf_release.evaluation.paired_comparisons:write_paired_comparisons",
        kind="other",
        inputs=tuple(inputs),
        outputs=(FILE,),
        keys=("seed",),
        parameters=PairedParameters(
            benchmark=benchmark,
            kind=judge.benchmark,
            label=label,
            row=row,
            repeats=request.repeats,
            others=tuple(compared),
            judge=judge.identity,
            baseline=request.baseline_name,
            decoding="as given" if row in asked.existing else asked.asking.label,
        ).as_json(),
        numbers="gshf_release.evaluation.paired_comparisons:paired_comparison_cells",
    )


def write_paired_comparisons(context: StageContext) -> None:
    """Write the comparisons with all they hold."""
    write_json(context.output(FILE), {other: as_json(found) for other, found in _compared(context).items()})


def as_json(found: Comparison | str) -> dict[str, Any]:
    """Return a comparison as JSON, or why there is none."""
    if isinstance(found, str):
        return {"refused": found}
    return {
        "difference": found.difference._asdict(),
        "interval": found.interval._asdict(),
        "sign_test": found.sign_test._asdict(),
        "minimal_detectable": found.minimal_detectable,
        "only_first": found.only_first,
        "only_second": found.only_second,
    }


def paired_comparison_cells(context: StageContext) -> list[Cell]:
    """Return the cells of a row's differences from other rows."""
    of = context.parameters(PairedParameters)
    place = {
        "table": of.benchmark,
        "row": of.row,
        "decoding": of.decoding,
        "judge": of.judge,
        "baseline": of.baseline,
        "artefact": context.run.relative(context.output(FILE)),
    }
    return [
        cell
        for other, found in _compared(context).items()
        for cell in comparison_cells(found, MEASURE[of.kind], UNIT[of.kind], other, place)
    ]


def comparison_cells(
    found: Comparison | str, measure: str, unit: str, other: str, place: Mapping[str, Any]
) -> list[Cell]:
    """Return the difference, its interval, the sign test and what could have been found."""
    metric = metrics.difference(measure, other)
    if isinstance(found, str):
        return [Cell(metric=metric, value=None, unit=unit, note=f"none: {found}", **place)]
    count, test = found.difference.n, found.sign_test
    left_out = found.only_first + found.only_second
    note = f"paired; {left_out} judged for one of the two alone are left out" if left_out else "paired"
    told = f"{found.interval.level:.0%} interval, paired bootstrap"
    values = {
        metrics.low(metric): (found.interval.low, unit, told),
        metrics.high(metric): (found.interval.high, unit, told),
        metrics.sign_test(other): (test.p, "", f"{test.wins} up, {test.losses} down, {test.ties} equal"),
        metrics.detectable(other): (found.minimal_detectable, unit, "found at 5 % with a probability of 80 %"),
    }
    return [
        Cell(
            metric=metric,
            value=found.difference.value,
            standard_error=found.difference.standard_error,
            n=count,
            unit=unit,
            note=note,
            **place,
        ),
        *(
            Cell(metric=name, value=value, n=count, unit=of, note=why, **place)
            for name, (value, of, why) in values.items()
        ),
    ]


def _compared(context: StageContext) -> dict[str, Comparison | str]:
    """Return each comparison, or why it cannot be made: too few prompts have judgments of both rows."""
    found: dict[str, Comparison | str] = {}
    of = context.parameters(PairedParameters)
    alpaca = of.kind == "alpaca_eval_2"
    own = _values(context, of, of.row)
    for other in of.others:
        try:
            clusters = None if alpaca else comparisons.questions(own)
            values = _values(context, of, other)
            found[other] = comparisons.compare(own, values, seed=context.seed, clusters=clusters)
        except DataError as error:
            found[other] = error.message
    return found


def _values(context: StageContext, of: PairedParameters, row: str) -> dict[Any, float]:
    """Return what each prompt, or each question and turn, of a row is worth."""
    if of.kind == "alpaca_eval_2":
        return comparisons.alpaca_eval_wins(averaged(annotation_repeats(context, of, row)))
    stage = judgments_stage(row, of.benchmark, of.label)
    singles, pairs = mt_bench_judgments.read(context.input(stage, FILES[of.kind]))
    if of.kind == "mt_bench_single":
        return comparisons.mt_bench_means(mt_bench_scoring.ratings_of(singles))
    protocol = PROTOCOLS[of.kind]
    own = answer_files.model_of(
        protocol, context.input(answers.answers_stage(row, of.benchmark), answer_files.FILES[protocol])
    )
    return comparisons.mt_bench_means(mt_bench_scoring.points_of(pairs, own))
