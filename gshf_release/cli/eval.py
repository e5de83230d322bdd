"""`gshf-release eval RUN|MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gshf_release.cli.terminal import (
    Terminal,
    data_option,
    json_option,
    print_json,
    print_table,
    profile_option,
    say,
    show,
    shown_path,
    stale_line,
)

if TYPE_CHECKING:
    from gshf_release.recipe.profile import Profile
    from gshf_release.run.directory import RunDirectory


@click.command(name="eval")
@click.argument("target", metavar="RUN|MODEL")
@click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    metavar="NAME",
    help="alpaca_eval_2, mt_bench (names in eval/benchmarks), or a file; repeatable.",
)
@click.option(
    "--iteration",
    "iterations",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Only this iteration; 0 is the base; repeatable.",
)
@click.option(
    "--judge",
    metavar="NAME",
    help="A name in eval/judges, or a copy of such a file with your endpoint [the benchmark's own].",
)
@click.option(
    "--set-judge",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the judge's file; repeatable.",
)
@click.option(
    "--baseline", metavar="MODEL|FILE|RUN", help="Whose answers the judge compares with [the benchmark's own]."
)
@click.option(
    "--outputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Judge the answers in this file (AlpacaEval's model_outputs or FastChat's model_answer) and make none.",
)
@click.option("--template", metavar="T", help="Chat template: fastchat:NAME, or tokenizer [the tokenizer's own].")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Ask only the first N questions [all, whatever was asked before].",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Judge each answer N times: the mean counts, the judge's noise is shown.",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0),
    metavar="USD",
    help="US dollars that the command's judgments may cost in all.",
)
@click.option(
    "--ask-again",
    type=click.Choice(["failed", "all"]),
    help="Ask the judge once more, although it has judged: about what failed, or about everything, not from the cache.",
)
@click.option("--batch", is_flag=True, help="Judge through the endpoint's Batch API.")
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The judge's calibration, for estimates of the official win rate [the one that `calibrate` saved, if any].",
)
@click.option(
    "--compare", metavar="REPORTED", help="Show differences from the published numbers in eval/reported/REPORTED.yaml."
)
@data_option
@click.option(
    "--allow-unverified-data",
    is_flag=True,
    help="Use a local file of the length-controlled fit with another hash; results say so.",
)
@click.option(
    "--import",
    "imported",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Add the results that lm-evaluation-harness wrote into this JSON file; needs --row.",
)
@click.option("--row", metavar="ROW", help="Whose results --import holds: base, iteration-1, ...")
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Folder for the evaluation of a MODEL.")
@click.option(
    "--trust-code",
    is_flag=True,
    help="Import the python: scorers that RUN names and ask its judges where it says, though you did not make it here.",
)
@profile_option
@click.option("--allow-redo", is_flag=True, help="Redo finished work that a change affects, even if it is much.")
@json_option
def command(target: str, folder: Path | None, profile: str, compare: str | None, as_json: bool, **options: Any) -> None:
    """Let the base and every iteration of RUN answer prompts, and compare or rate the answers.

    Without --benchmark: the evaluation prompts at equal decoding, compared by a stand-in annotator (the second scorer, which
    training never saw), and the benchmarks in the recipe. With it: that benchmark alone. MODEL (a folder, a Hub id, a package)
    gets a run of its own, runs/eval-<name>. The parent that `train --seeds` made is evaluated seed by seed.

    Judgments are kept and shared by all runs: a command given again pays for nothing twice, and another judge makes no new
    answers. The cache does not know when another model hides behind the same address and name: --ask-again all asks anew and
    replaces what is cached. Rows of one judge are compared on the same prompts. Beside the win rate by a judge that was
    calibrated stands the estimate of the official one.

    \b
    Examples:
      gshf-release eval runs/quickstart
      gshf-release eval runs/quickstart --benchmark mt_bench --judge my-judge.yaml --max-cost 5
      gshf-release eval ./my-model --benchmark alpaca_eval_2 --template fastchat:zephyr
      gshf-release eval my-model --outputs model_outputs.json
      gshf-release eval runs/mine --benchmark mt_bench --judge my-judge.yaml --ask-again failed
      gshf-release eval runs/mine --benchmark alpaca_eval_2 --baseline runs/other --judge my-judge.yaml
      gshf-release eval runs/mine --import results_2026.json --row iteration-3
    """
    from gshf_release import pipeline
    from gshf_release.cli.report import show_seeds
    from gshf_release.evaluation.judgments import behind, failed_before, unasked
    from gshf_release.models.checkpoints import prepare
    from gshf_release.recipe import profile as profiles
    from gshf_release.release.rules import require_own
    from gshf_release.report.seeds import refresh, write_merged
    from gshf_release.run.directory import seed_runs

    where = _with_limits(profiles.load(profile), options["max_cost"], options["batch"])
    _use_data(options["data"])
    seeds = seed_runs(Path(target))
    if seeds:
        _refuse_what_is_of_one_run(seeds, compare, options)
    directories = [_directory(str(one), folder, where, options) for one in seeds.values() or [target]]
    for directory in directories:
        require_own(directory, "eval {checkpoint} --benchmark NAME")
        wanted = _ask(directory, target, options)
        if options["outputs"] is None and options["imported"] is None:
            prepare(where)
        if seeds:
            say(f"{shown_path(directory.path)}:")
        observer = Terminal(directory)
        again = [*behind(wanted or []), *(wanted or [])] if options["ask_again"] is not None else []
        how = {"allow_redo": options["allow_redo"], "trust_code": options["trust_code"]}
        pipeline.evaluate(directory, where, observer=observer, wanted=wanted, on_purpose=again, **how)
        for stage in unasked(directory, wanted or []):
            failed = failed_before(directory, stage)
            told = f", {failed} had failed and count as missing" if failed else ""
            say(f"{stage}: finished before, 0 judgments asked{told}; --ask-again failed (or all) asks once more.")
        refresh(directory.path)
    if seeds:
        write_merged(Path(target))
        show_seeds(Path(target), as_json)
        say(f"Over seeds: {shown_path(Path(target) / 'results.json')}, results.csv, results.md")
    else:
        _show(directories[0], compare, as_json)


def _refuse_what_is_of_one_run(seeds: dict[int, Path], compare: str | None, options: dict[str, Any]) -> None:
    given = {"--outputs": options["outputs"], "--import": options["imported"], "--compare": compare}
    named = [name for name, value in given.items() if value is not None]
    if named:
        one = next(iter(seeds.values()))
        raise click.UsageError(f"{named[0]} needs one run, such as {one}; this is the parent of {len(seeds)} seeds.")


def _with_limits(where: Profile, max_cost: float | None, batch: bool) -> Profile:
    judging = where.judging.model_copy(
        update={
            "max_cost": where.judging.max_cost if max_cost is None else max_cost,
            "batch": where.judging.batch or batch,
        }
    )
    return where.model_copy(update={"judging": judging})


def _directory(target: str, folder: Path | None, where: Profile, options: dict[str, Any]) -> RunDirectory:
    """Return the run at `target`, or the one that evaluates the model `target`."""
    from gshf_release import pipeline
    from gshf_release.run.directory import DOCUMENT, RunDirectory

    if (Path(target) / DOCUMENT).is_file():
        return RunDirectory.open(Path(target))
    if not options["benchmarks"] and options["outputs"] is None:
        return RunDirectory.open(Path(target))  # says what it is not
    return pipeline.evaluation_run(target, folder, where, needs_model=options["outputs"] is None)


def _use_data(data: Path | None) -> None:
    """Let the stages, in this process and in workers, find the user's benchmark files before any others."""
    import os

    from gshf_release.prompts.benchmark_files import VARIABLE

    if data is not None:
        os.environ[VARIABLE] = str(data.resolve())


def _ask(directory: RunDirectory, target: str, options: dict[str, Any]) -> list[str] | None:
    """Remember what is asked for and return the stages that fulfil it; None is the whole evaluation."""
    from gshf_release.pipeline import policies_of

    recipe = directory.recipe
    policies = [row for row, _ in policies_of(recipe)]
    if options["imported"] is not None:
        from gshf_release.evaluation.request_builder import request_import

        if options["row"] is None:
            raise click.UsageError("--import needs --row.")
        return request_import(directory, options["imported"], options["row"], policies)
    named = options["benchmarks"]
    if options["outputs"] is not None and not named:
        from gshf_release.evaluation.answer_files import benchmark_of

        named = (benchmark_of(options["outputs"]),)
    if not (named or recipe.evaluation.benchmarks):
        return None
    from gshf_release.evaluation.request_builder import EvaluationOptions, request_evaluation

    names = ("judge", "baseline", "template", "limit", "repeats", "outputs", "data", "calibration", "ask_again")
    request = EvaluationOptions(
        benchmarks=named or recipe.evaluation.benchmarks,
        rows=_rows(options["iterations"], policies),
        named_by_run=not named,
        judge_overrides=options["overrides"],
        allow_unverified=options["allow_unverified_data"],
        model=_model_name(directory, target),
        **{name: options[name] for name in names},
    )
    wanted = request_evaluation(directory, request, policies, say)
    return wanted if named else None


def _model_name(directory: RunDirectory, target: str) -> str | None:
    """Return what the command calls the model whose answers it brings; None where it names a run."""
    from gshf_release.run.directory import DOCUMENT

    named_run = (Path(target) / DOCUMENT).is_file() or not directory.recipe.evaluation.only
    return None if named_run else Path(target).name


def _rows(iterations: tuple[int, ...], policies: list[str]) -> tuple[str, ...]:
    if any(number >= len(policies) for number in iterations):
        raise click.UsageError(f"--iteration goes from 0 (the base) to {len(policies) - 1}.")
    return tuple(policies[number] for number in iterations) or tuple(policies)


def _show(directory: RunDirectory, compare: str | None, as_json: bool) -> None:
    from gshf_release.data.results import read_cells, select
    from gshf_release.diagnostics.verdict import verdict
    from gshf_release.report.benchmarks import comparison_tables
    from gshf_release.report.notices import notices
    from gshf_release.report.tables import all_tables

    cells = read_cells(directory.path / "results.json")
    found = [*stale_line(directory), *notices(cells)]
    for line in found:
        say(line)
    if as_json:
        print_json({"cells": [cell.model_dump() for cell in cells], "notices": found})
        return
    for table in all_tables(cells):
        print_table(table)
    for table in comparison_tables(cells, compare) if compare is not None else []:
        print_table(table)
    if select(cells, table="test"):
        show(verdict(cells))
    say(f"Results: {shown_path(directory.path / 'results.json')}, results.csv, results.md")
    if not directory.recipe.evaluation.only:
        say(f"Next: gshf-release publish {shown_path(directory.path)} --out release-out")
