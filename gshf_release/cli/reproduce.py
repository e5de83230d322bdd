"""`gshf-release reproduce NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gshf_release.cli.terminal import data_option, json_option, print_json, print_table, say, show

if TYPE_CHECKING:
    from gshf_release.evaluation.reproduction.claims import Measured, Reported, Reproduction, Rung

CHOICES = ("judgments", "answers", "weights", "recipe")


@click.command(name="reproduce")
@click.argument("name")
@click.option(
    "--from",
    "rung",
    type=click.Choice(CHOICES),
    help="The deepest rung to check [the deepest that an option below gives files for].",
)
@click.option("--annotations", multiple=True, metavar="[ROW=]FILE", help="Stored official judgments; repeatable.")
@click.option(
    "--outputs", multiple=True, metavar="[ROW=]FILE", help="Published answers, model_outputs.json; repeatable."
)
@click.option("--rejudged", multiple=True, metavar="[ROW=]FILE", help="New judgments of those answers; repeatable.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="[ROW=]RUN",
    help="A run that `eval` has finished, for the rungs weights and recipe.",
)
@data_option
@click.option("--allow-unverified-data", is_flag=True, help="Use a local file of the name with another hash.")
@json_option
def command(
    name: str,
    rung: Any,
    annotations: tuple[str, ...],
    outputs: tuple[str, ...],
    rejudged: tuple[str, ...],
    runs: tuple[str, ...],
    data: Path | None,
    allow_unverified_data: bool,
    as_json: bool,
) -> None:
    """Check the claims in eval/reported/NAME.yaml, from the printed number down to the recipe.

    Every rung redoes more: `judgments` scores the stored judgments, `answers` judges the published answers, `weights` samples
    new answers, `recipe` trains anew; each allows the noise of what it redoes. The verdict names the first rung at which a
    claim breaks. A file or run without ROW= speaks of the last row. Exit code: 0 if nothing is contradicted, else 3.

    \b
    Examples:
      gshf-release reproduce fsfairx-zephyr-7b
      gshf-release reproduce fsfairx-zephyr-7b --outputs model_outputs.json
      gshf-release reproduce fsfairx-zephyr-7b --from recipe --run runs/fsfairx-zephyr-7b
    """
    from gshf_release.errors import VerificationError
    from gshf_release.evaluation.reproduction.claims import CONTRADICTED, load, published, reproduce
    from gshf_release.evaluation.reproduction.evidence import check_models, from_run

    reported = load(name)
    deepest = rung or _deepest(annotations, outputs, rejudged, runs)
    if runs and deepest not in ("weights", "recipe"):
        raise click.UsageError("--run belongs to --from weights or --from recipe.")
    measured = _judged(reported, "judgments", annotations, data, allow_unverified_data)
    measured += _answers(reported, outputs, rejudged, data, allow_unverified_data)
    measured += [entry for row, path in _sources(reported, runs) for entry in from_run(row, path, deepest)]
    notices = check_models(reported, measured)
    found = reproduce(reported, published(reported) + measured, deepest)
    notices += found.uncompared()
    for line in notices:
        say(f"Warning: {line}")
    if as_json:
        print_json(found.document() | {"notices": notices})
    else:
        _show(found)
    if found.count(CONTRADICTED):
        raise VerificationError(f"{reported.name}: {found.verdict}.")


def _deepest(annotations: Sequence[str], outputs: Sequence[str], rejudged: Sequence[str], runs: Sequence[str]) -> Rung:
    if runs:
        raise click.UsageError("Say with --from weights or --from recipe where the run begins.")
    return "answers" if outputs or rejudged else "judgments"


def _sources(reported: Reported, given: Sequence[str]) -> list[tuple[str, Path]]:
    """Return `ROW=PATH`, or `PATH` of the last row, as rows and paths; a row must be one of the claims'."""
    from gshf_release.errors import DataError

    rows = list(dict.fromkeys(claim.row for claim in reported.all_claims()))
    found = []
    for text in given:
        row, separator, path = text.partition("=")
        if not separator or Path(text).exists():
            row, path = str(reported.rows[-1]["row"]), text
        if row not in rows:
            raise DataError(f"{text!r}: there is no claim on a row {row!r}.", hint=f"Rows: {', '.join(rows)}.")
        found.append((row, Path(path)))
    return found


def _judged(
    reported: Reported, rung: Rung, given: Sequence[str], folder: Path | None, allow_unverified: bool
) -> list[Measured]:
    from gshf_release.evaluation.alpaca_eval import data as borrowed
    from gshf_release.evaluation.reproduction.evidence import from_judgments

    sources = _sources(reported, given)
    data = borrowed.AlpacaEvalData(missing="only MT-Bench was given")
    if any(".jsonl" not in path.name for _, path in sources):
        data = borrowed.load(folder, allow_unverified=allow_unverified)
    return [entry for row, path in sources for entry in from_judgments(row, path, rung, data)]


def _answers(
    reported: Reported, outputs: Sequence[str], rejudged: Sequence[str], folder: Path | None, allow_unverified: bool
) -> list[Measured]:
    """Return what the published answers give; new judgments must be of those very answers if both are given."""
    from gshf_release.errors import DataError
    from gshf_release.evaluation.reproduction.evidence import changed_answers, from_outputs

    answers = dict(_sources(reported, outputs))
    for row, path in _sources(reported, rejudged):
        if row in answers and ".jsonl" not in path.name:
            changed = changed_answers(answers[row], path)
            if changed:
                raise DataError(
                    f"{path}: {changed} judged answers are not those in {answers[row]}.",
                    hint="Judge the published answers: gshf-release eval MODEL --outputs FILE",
                )
    measured = [entry for row, path in answers.items() for entry in from_outputs(row, path)]
    return measured + _judged(reported, "answers", rejudged, folder, allow_unverified)


def _show(found: Reproduction) -> None:
    from gshf_release.evaluation.reproduction.claims import NEEDS, RUNGS, VERIFIED
    from gshf_release.report.tables import Table

    rows = []
    for outcome in found.outcomes:
        claim = outcome.claim
        name = f"{claim.row}{' (contrast)' if claim.contrast else ''}"
        checks = [
            f"{check.rung} {check.measured:.4f} (± {check.tolerance:.4f})"
            for check in outcome.checks
            if check.measured is not None and check.tolerance is not None
        ]
        where = f" at {outcome.rung}" if outcome.rung else ""
        if (outcome.status, outcome.rung) == (VERIFIED, RUNGS[0]):
            where = " on the leaderboard only"
        rows.append(
            [name, claim.benchmark, claim.metric, f"{claim.value:g}", "; ".join(checks), outcome.status + where]
        )
    header = ["model", "benchmark", "metric", "claimed", "found (allowed)", "status"]
    sources = dict.fromkeys(outcome.claim.source for outcome in found.outcomes)
    print_table(Table(f"Claims on {found.reported.name}", header, rows, [f"Sources: {'; '.join(sources)}."]))
    for (row, benchmark, why), metrics in _uncheckable(found).items():
        show(f"Uncheckable: {row}, {benchmark} ({', '.join(metrics)}): {why}.")
    for rung in RUNGS[1:]:
        show(f"Rung {rung}{'' if rung in found.rungs else ' (not asked for)'} needs {NEEDS[rung]}.")
    show(f"{found.verdict}.")


def _uncheckable(found: Reproduction) -> dict[tuple[str, str, str], list[str]]:
    """Return `{(row, benchmark, why): metrics}` of the claims that nothing could be compared with."""
    from gshf_release.evaluation.reproduction.claims import UNCHECKABLE

    groups: dict[tuple[str, str, str], list[str]] = {}
    for outcome in found.outcomes:
        if outcome.status == UNCHECKABLE:
            key = (outcome.claim.row, outcome.claim.benchmark, outcome.why)
            groups.setdefault(key, []).append(outcome.claim.metric)
    return groups
