"""`gshf-release calibrate JUDGE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gshf_release.cli.terminal import data_option, json_option, print_json, print_table, say, show, shown_path

if TYPE_CHECKING:
    from gshf_release.data.statistics import Estimate
    from gshf_release.evaluation.calibration import Calibration
    from gshf_release.evaluation.calibration.replay import SubstituteJudge

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="calibrate")
@click.argument("judge")
@click.option(
    "--annotations",
    multiple=True,
    required=True,
    type=FILE,
    help="Official judgments of one model; once for each, three or more.",
)
@click.option("--stored", multiple=True, type=FILE, help="The judge's own annotations.json, instead of asking it.")
@click.option("--sample", type=click.IntRange(1), help="How many prompts each model is judged on [all].")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Chooses the sample.")
@click.option("--outputs", type=FILE, help="model_outputs.json of a new model: judge it too, print its estimate.")
@click.option("--out", type=FILE, help="Where the calibration is saved [the cache, by the judge's name].")
@click.option(
    "--set-judge",
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the judge's file; repeatable.",
)
@click.option("--max-cost", type=click.FloatRange(0), metavar="USD", help="US dollars that judging may cost.")
@data_option
@json_option
def command(
    judge: str,
    annotations: tuple[Path, ...],
    stored: tuple[Path, ...],
    sample: int | None,
    seed: int,
    outputs: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    max_cost: float | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Find how far JUDGE stands from the official judge: replay stored official judgments with it.

    JUDGE is a name in eval/judges or a copy of such a file, or with --stored any name. The files hold the official judgments of
    several models that differ in strength, as the AlpacaEval repository keeps them
    (results/MODEL/weighted_alpaca_eval_gpt4_turbo/annotations.json). JUDGE judges the same pairs of answers on a
    sample of prompts. What comes out is its agreement, where it leans, and the line that turns a win rate by JUDGE into an
    estimate of the official one with a 90 % interval. `eval` with the same judge then shows that estimate.

    \b
    Examples:
      gshf-release calibrate my-judge.yaml --annotations a.json --annotations b.json --annotations c.json --sample 200
      gshf-release calibrate mine --annotations a.json --annotations b.json --annotations c.json --stored by-mine.json
    """
    from gshf_release.errors import CalibrationError
    from gshf_release.evaluation.calibration import calibrate, default_path
    from gshf_release.evaluation.calibration import replay as replays

    official = replays.read_official(annotations)
    substitute = _substitute(judge, stored, overrides, max_cost, data)
    prompts = replays.sample(official.shared_prompts(), sample, seed)
    found = calibrate(official, substitute, sample_size=sample, seed=seed)
    new = None
    if outputs is not None and not found.refused:
        new = replays.judge_outputs(outputs, official, prompts, substitute)
    document: dict[str, Any] = found.document()
    if not as_json:
        _show(found)
    if found.refused:
        if as_json:
            print_json(document)
        found.estimate(0.0, 0.0)
    path = found.save(out or default_path(found.judge))
    say(f"Calibration: {shown_path(path)}")
    try:
        if new is not None:
            document["new_model"] = _new_model(found, *new, as_json=as_json)
    except CalibrationError as error:
        document["new_model"] = {"model": new[0] if new else "", "refused": error.message}
        raise
    finally:
        if as_json:
            print_json(document)


def _substitute(
    name: str, stored: tuple[Path, ...], overrides: tuple[str, ...], max_cost: float | None, data: Path | None
) -> SubstituteJudge:
    from gshf_release.evaluation.calibration.asking import AskedJudge
    from gshf_release.evaluation.calibration.replay import StoredJudge

    if stored:
        return StoredJudge(name, stored)
    return AskedJudge.open(name, overrides=overrides, max_cost=max_cost, data=data, say=say)


def _new_model(found: Calibration, name: str, preferences: Any, *, as_json: bool) -> dict[str, Any]:
    from gshf_release.evaluation.calibration.document import estimate_of

    rate = estimate_of(preferences)
    interval = found.estimate(rate.value, rate.standard_error)
    if not as_json:
        show(
            f"{name}: {_shown(rate)} % by {found.judge}, calibrated {interval.value:.2f} % "
            f"({interval.low:.2f} to {interval.high:.2f}, {interval.level:.0%} interval)"
        )
    return {
        "model": name,
        "substitute": rate.value,
        "substitute_error": rate.standard_error,
        "n": rate.n,
        "estimate": interval.value,
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
    }


def _show(found: Calibration) -> None:
    from gshf_release.report.tables import Table

    if found.failed:
        say(
            f"Warning: {found.failed} of {found.failed + found.agreement.pairs} judgments failed; a prompt on which one failed "
            f"is left out for every model: {found.prompts} prompts remain."
        )
    rows = [
        [
            entry.model,
            f"{entry.official:.2f} ± {entry.official_error:.2f}",
            f"{entry.substitute:.2f} ± {entry.substitute_error:.2f}",
            "–" if left.estimate is None else f"{left.estimate:.2f} ({left.low:.2f} to {left.high:.2f})",
        ]
        for entry, left in zip(found.models, found.leave_one_out, strict=True)
    ]
    header = ["model", "official", found.judge, "official from the other models' line"]
    title = f"Win rates % on {found.prompts} prompts against {found.baseline}"
    print_table(Table(title, header, rows, [f"{e.model}: {e.refused}" for e in found.leave_one_out if e.refused]))
    for line in _lines(found):
        show(line)


def _lines(found: Calibration) -> list[str]:
    """Return what is said below the table."""
    measured = found.agreement
    lines = [f"{measured.pairs} pairs, {found.failed} failed judgments; official judge {found.official_judge}"]
    lines.append(f"Agreement: {_shown(measured.accuracy)} % of {measured.decided} pairs that both decide")
    if measured.kappa is not None:
        error = "" if measured.kappa_error is None else f" ± {measured.kappa_error:.3f}"
        lines.append(f"Cohen's kappa: {measured.kappa:.3f}{error}")
    if found.spearman is not None:
        lines.append(f"Spearman's correlation of the {len(found.models)} models' win rates: {found.spearman:.3f}")
    lines.append(
        f"Leans to the longer answer by {_shown(measured.length_bias)} points, compared with the official judge"
    )
    if measured.position_bias is None:
        lines.append("Bias by position: not known, the orders in which the judge saw the answers are not stored")
    else:
        lines.append(f"Leans to the answer it saw first by {_shown(measured.position_bias)} points")
    if found.slope is not None and found.intercept is not None:
        slope, start = found.slope, found.intercept
        lines.append(
            f"official = {start.value:.2f} ({start.low:.2f} to {start.high:.2f}) + {slope.value:.3f} ({slope.low:.3f} to "
            f"{slope.high:.3f}) x substitute, {slope.level:.0%} intervals; models scatter by {found.line.tau:.2f} points; "
            f"valid from {found.range[0]:.2f} to {found.range[1]:.2f}"
        )
    return lines


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.2f}" + ("" if estimate.standard_error is None else f" ± {estimate.standard_error:.2f}")
