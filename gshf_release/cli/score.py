"""`gshf-release score BENCHMARK FILE...`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gshf_release.cli.terminal import data_option, json_option, print_json, print_table, say, shown_path

if TYPE_CHECKING:
    from gshf_release.errors import GshfError
    from gshf_release.evaluation.alpaca_eval.scoring import AlpacaEvalScore
    from gshf_release.evaluation.mt_bench.scoring import MTBenchPairScore, MTBenchScore

Given = TypeVar("Given")
Made = TypeVar("Made")
ALPACA_EVAL = "alpaca_eval_2"
MT_BENCH = "mt_bench"
ERROR_NOTE = "± standard error; the judgments of a question go together."


@click.command(name="score")
@click.argument("benchmark", type=click.Choice([ALPACA_EVAL, MT_BENCH]))
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@data_option
@click.option(
    "--allow-unverified-data", is_flag=True, help="Use a local file of the name with another hash; results say so."
)
@click.option(
    "--as-published",
    is_flag=True,
    help="Take difficulties by row position, as AlpacaEval's library does, and show the difference.",
)
@json_option
def command(
    benchmark: str,
    files: tuple[Path, ...],
    data: Path | None,
    allow_unverified_data: bool,
    as_published: bool,
    as_json: bool,
) -> None:
    """Compute a benchmark's numbers from stored judgments: no model, no judge, no key.

    alpaca_eval_2 reads the annotations.json of the AlpacaEval repository (.gz too), mt_bench FastChat's judgment files. Each
    file is scored on its own, with a row for each model and judge in it.

    \b
    Examples:
      gshf-release score alpaca_eval_2 results/my-model/annotations.json
      gshf-release score mt_bench model_judgment/gpt-4_single.jsonl --json
    """
    if benchmark == ALPACA_EVAL:
        _alpaca_eval(files, data, allow_unverified_data, as_published, as_json)
        return
    if data is not None or allow_unverified_data or as_published:
        raise click.UsageError(f"--data, --allow-unverified-data and --as-published belong to {ALPACA_EVAL}.")
    _mt_bench(files, as_json)


def _alpaca_eval(
    files: tuple[Path, ...], folder: Path | None, allow_unverified: bool, as_published: bool, as_json: bool
) -> None:
    from gshf_release.evaluation.alpaca_eval import annotations, scoring
    from gshf_release.evaluation.alpaca_eval import data as borrowed

    read, failures = _each(files, lambda path: annotations.groups(annotations.read(path)))
    models = [(path, rows) for path, groups in read for rows in groups]
    data = borrowed.AlpacaEvalData()
    if any(scoring.needs_data(rows) for _, rows in models):
        data = borrowed.load(folder, allow_unverified=allow_unverified)
    scores, unscored = _each(models, lambda model: scoring.score(model[1], data, as_published))
    if data.unverified:
        _warn(f"Not the pinned files, used because --allow-unverified-data says so: {', '.join(data.unverified)}.")
    _show_warnings([(path, one.model, one.warnings) for (path, _), one in scores])
    if as_json and scores:
        print_json([asdict(one) | {"file": str(path)} for (path, _), one in scores])
    elif scores:
        _print_alpaca_eval([one for _, one in scores])
    _raise(failures + unscored)


def _mt_bench(files: tuple[Path, ...], as_json: bool) -> None:
    from gshf_release.evaluation.mt_bench import judgments, scoring

    def score(path: Path) -> list[MTBenchScore | MTBenchPairScore]:
        singles, pairs = judgments.read(path)
        return [*scoring.score(singles), *scoring.score_pairs(pairs)]

    read, failures = _each(files, score)
    scores = [(path, one) for path, found in read for one in found]
    _show_warnings([(path, one.model, one.warnings) for path, one in scores])
    if as_json and scores:
        print_json([asdict(one) | {"file": str(path)} for path, one in scores])
    elif scores:
        _print_mt_bench([one for _, one in scores])
    _raise(failures)


def _each(values: Iterable[Given], work: Callable[[Given], Made]) -> tuple[list[tuple[Given, Made]], list[GshfError]]:
    """Return what work makes of each value, and the errors of those that it refuses: one bad file keeps no good one back."""
    from gshf_release.errors import DataError

    made: list[tuple[Given, Made]] = []
    failures: list[GshfError] = []
    for value in values:
        try:
            made.append((value, work(value)))
        except DataError as error:
            failures.append(error)
    return made, failures


def _raise(failures: Sequence[GshfError]) -> None:
    """Say what could not be scored, after the numbers of what could; the last of several is the command's error.

    Raises:
        DataError: At least one.
    """
    for error in failures[:-1]:
        say(f"Error: {error}")
    if failures:
        raise failures[-1]


def _warn(text: str) -> None:
    say(f"Warning: {text}")


def _show_warnings(found: list[tuple[Path, str, tuple[str, ...]]]) -> None:
    for path, model, warnings in found:
        for text in warnings:
            _warn(f"{shown_path(path)}, {model}: {text}")


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _with_error(value: float | None, error: float | None, digits: int = 2) -> str:
    return _number(value, digits) if error is None else f"{_number(value, digits)} ± {_number(error, digits)}"


def _print_alpaca_eval(scores: list[AlpacaEvalScore]) -> None:
    from gshf_release.evaluation.alpaca_eval.scoring import HYBRID, INCOMPLETE
    from gshf_release.report.tables import Table

    header = ["model", "LC win rate %", "over equally good fits", "win rate %", "length", "n", "judge", "baseline"]
    rows = []
    for one in scores:
        mark = {HYBRID: f" ({HYBRID})", INCOMPLETE: " (incomplete)"}.get(one.lc_label, "")
        span = "-" if one.lc_low is None else f"{_number(one.lc_low)} to {_number(one.lc_high)}"
        controlled = _with_error(one.length_controlled_winrate, one.lc_standard_error) + mark
        plain = _with_error(one.win_rate, one.standard_error)
        rows.append([one.model, controlled, span, plain, str(one.avg_length), _count(one), one.judge, one.baseline])
    print_table(Table("AlpacaEval 2", header, rows, _notes(scores)))


def _count(one: AlpacaEvalScore) -> str:
    """Return the judgments, and of how many if instructions are missing."""
    return _of_all(one.n_total, one.n_null, one.n_missing or 0)


def _of_all(judged: int, failed: int, missing: int) -> str:
    """Return a count, with the whole where judgments failed or are missing: marked if the number is one of a part."""
    from gshf_release.report.partial import WHOLE

    whole = judged + failed + missing
    part = " (incomplete)" if missing or judged < WHOLE * whole else ""
    return str(judged) if judged == whole else f"{judged} of {whole}{part}"


def _notes(scores: list[AlpacaEvalScore]) -> list[str]:
    from gshf_release.evaluation.alpaca_eval.scoring import NONE

    notes = ["± standard error. LC: length-controlled. Length: mean characters of an answer."]
    notes += [f"{one.model}: no LC win rate: {one.lc_reason}" for one in scores if one.lc_label == NONE]
    notes += sorted({f"Data: {one.data}" for one in scores if one.data.startswith("unverified")})
    for one in scores:
        if one.lc_difference:
            notes.append(
                f"{one.model}: LC by position minus by instruction {one.lc_difference:+.2f}; shown: by {one.lc_rule}."
            )
    return notes


def _print_mt_bench(scores: list[MTBenchScore | MTBenchPairScore]) -> None:
    from gshf_release.evaluation.mt_bench.scoring import CATEGORIES, MTBenchPairScore, MTBenchScore
    from gshf_release.report.tables import Table

    singles = [one for one in scores if isinstance(one, MTBenchScore)]
    pairs = [one for one in scores if isinstance(one, MTBenchPairScore)]
    if singles:
        header = ["model", "average", "turn 1", "turn 2", "lower bound", "n", "unparsed", "judge"]
        rows = [_single_row(one) for one in singles]
        print_table(
            Table(
                "MT-Bench", header, rows, ["Lower bound: the average if each unparsed judgment were a 1.", ERROR_NOTE]
            )
        )
        used = [name for name in (*CATEGORIES, "other") if any(name in one.by_category for one in singles)]
        rows = [[one.model, *(_number(one.by_category.get(name)) for name in used)] for one in singles]
        print_table(Table("MT-Bench by category", ["model", *used], rows))
    if pairs:
        header = ["model", "win", "tie", "loss", "adjusted win rate %", "n", "judge"]
        print_table(Table("MT-Bench, pairwise", header, [_pair_row(one) for one in pairs], [ERROR_NOTE]))


def _single_row(one: MTBenchScore) -> list[str]:
    means = [(one.average, one.standard_error), (one.first_turn, one.first_turn_error)]
    means += [(one.second_turn, one.second_turn_error)]
    shown = [_with_error(value, error, 3) for value, error in means]
    count = _of_all(one.n, one.n_unparsed, one.n_missing)
    return [one.model, *shown, _number(one.lower_bound, 3), count, str(one.n_unparsed), one.judge]


def _pair_row(one: MTBenchPairScore) -> list[str]:
    return [
        one.model,
        str(one.win),
        str(one.tie),
        str(one.loss),
        _with_error(_percent(one.adjusted_win_rate), _percent(one.standard_error)),
        _of_all(one.n, one.n_errors, one.n_missing),
        one.judge,
    ]
