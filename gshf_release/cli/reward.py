"""`gshf-release reward train|score|agreement`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gshf_release.cli.terminal import SUMMARY_SECONDS, json_option, print_json, profile_option, say, show, shown_path


@click.group(name="reward", context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
def command() -> None:
    """Train a reward model, score answers with one, or compare it with judgments that it was not trained on.

    \b
    Examples:
      gshf-release reward train preferences.jsonl --base my-chat-model --out my-reward-model
      gshf-release reward score answers.jsonl --model my-reward-model
    """


def bad_row_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--on-bad-row`."""
    text = "A bad row stops the command, or is skipped and counted."
    choice = click.Choice(["fail", "skip"])
    return click.option("--on-bad-row", type=choice, default="fail", show_default=True, help=text)(function)


def _open_profile(name: str) -> Any:
    from gshf_release.models.checkpoints import prepare
    from gshf_release.recipe import profile as profiles

    found = profiles.load(name)
    prepare(found)
    return found


@command.command(name="train")
@click.argument("data")
@click.option("--base", required=True, help="Chat model that gets a new head, or reward model to go on from.")
@click.option("--base-revision", help="Branch, tag or commit of a base on the Hub.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder that becomes the checkpoint.")
@click.option("--data-revision", help="Branch, tag or commit of a data set on the Hub.")
@click.option("--split", default="train", show_default=True, help="Which split of a data set's folder.")
@click.option("--held-out", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of prompts [0.05].")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Peak learning rate [5e-6].")
@click.option("--schedule", type=click.Choice(["cosine", "linear", "constant"]), help="Of the learning rate [cosine].")
@click.option("--warmup-share", type=click.FloatRange(0, 1, max_open=True), help="Share of steps [0.03].")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data [1].")
@click.option("--batch-pairs", type=click.IntRange(1), help="Pairs in one optimiser step [64].")
@click.option("--max-tokens", type=click.IntRange(1), help="Pairs with a longer side are dropped, counted [4096].")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="Arithmetic; the weights are FP32 [bf16].")
@click.option("--layers", type=click.IntRange(1), help="Keep only the first layers of the base [all].")
@click.option("--seed", type=click.IntRange(0), help="[0]")
@click.option("--checkpoint-every", type=click.IntRange(1), default=50, show_default=True, help="Optimiser steps.")
@bad_row_option
@profile_option
@json_option
def train(
    data: str,
    out: Path,
    base_revision: str | None,
    data_revision: str | None,
    on_bad_row: Any,
    checkpoint_every: int,
    profile: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a reward model from the preferences in DATA: a JSONL or Parquet file, or a Hub data set (folder or OWNER/NAME).

    Rows hold prompt, chosen and rejected; as texts, or as lists of messages (docs/data.md shows every form). Prompts are held
    out to measure accuracy (also on pairs of nearly equal length) and calibration. The same command again resumes.

    \b
    Examples:
      gshf-release reward train preferences.jsonl --base my-chat-model --out my-reward-model
      gshf-release reward train trl-lib/ultrafeedback_binarized --base my-chat-model --out rm --profile one-80gb
    """
    from gshf_release.models.checkpoints import fetch_data
    from gshf_release.rewards.preference_training import RewardTrainingOptions
    from gshf_release.rewards.preference_training import train as work

    where = _open_profile(profile)
    chosen = {name: value for name, value in settings.items() if value is not None}
    document = work(
        fetch_data(data, revision=data_revision),
        out,
        RewardTrainingOptions(**chosen, revision=base_revision),
        where,
        on_bad_row=on_bad_row,
        checkpoint_every=checkpoint_every,
        progress=_progress(),
        say=say,
    )
    if as_json:
        print_json({"model": str(out)} | {name: value for name, value in document.items() if name != "steps"})
        return
    _show_training(document)
    say(f"Reward model: {shown_path(out)}\nNext: gshf-release reward score FILE --model {shown_path(out)}")


def _progress() -> Callable[[int, int, str], None]:
    """Return where progress is reported: a line now and then on stderr."""
    begun = last = time.monotonic()

    def report(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > SUMMARY_SECONDS:
            last = now
            say(f"{done}/{total} {unit} after {now - begun:.0f} s")

    return report


def _show_training(document: dict[str, Any]) -> None:
    """Print what was trained on, what was dropped, and the held-out numbers."""
    from gshf_release.data.results import Cell

    pairs = document["pairs"]
    show(
        f"Pairs: {pairs['trained']} trained, {pairs['held_out']} held out, {pairs['too_long']} too long, "
        f"{document['skipped_rows']} bad rows skipped"
    )
    for line in document["bad_rows"][:5]:
        say(f"  skipped {line}")
    if document["folded_system_turns"]:
        turns = document["folded_system_turns"]
        show(f"The template takes no system turn: {turns} were folded into the first user turn.")
    _show_cells([Cell.model_validate(entry) for entry in document["results"]])
    show("Calibration: sigmoid(|margin|) against the share that is right")
    for entry in document["calibration"]:
        if entry["n"]:
            error = "" if entry["standard_error"] is None else f" ± {100 * entry['standard_error']:.1f}"
            show(
                f"  {100 * entry['low']:3.0f}–{100 * entry['high']:3.0f}%: confident {100 * entry['confidence']:5.1f}%, "
                f"right {100 * entry['accuracy']:5.1f}%{error}, n {entry['n']}"
            )


def _show_cells(cells: list[Any]) -> None:
    from gshf_release.data.results import shown

    width = max(len(entry.metric) for entry in cells)
    for entry in cells:
        note = f" ({entry.note})" if entry.note else ""
        show(f"{entry.metric:{width}}  {shown(entry)}{entry.unit}, n {entry.n}{note}")


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--model` and `--kind`."""
    text = (
        "Folder, Hub id or python:package.module:function; several make an ensemble. With --kind checks: instructions."
    )
    kinds = click.Choice(["sequence-classification", "pairwise", "checks"])
    function = click.option("--kind", type=kinds, default="sequence-classification", show_default=True)(function)
    return click.option("--model", "models", multiple=True, required=True, metavar="MODEL", help=text)(function)


@command.command(name="score")
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .jsonl or .parquet file [FILE with .scores before .jsonl]."
)
@click.option("--split", default="train", show_default=True, help="Which split, if FILE is a data set's folder.")
@bad_row_option
@profile_option
@json_option
def score(
    file: Path,
    models: tuple[str, ...],
    kind: str,
    out: Path | None,
    split: str,
    on_bad_row: Any,
    profile: str,
    as_json: bool,
) -> None:
    """Score the conversations in FILE (JSONL, JSON or Parquet) and write its rows with a column `reward`.

    A row holds `messages` that end with the assistant's turn, or `prompt` (or `instruction`) and `response` (or `completion`,
    `output`); docs/data.md shows every form. With several models the reward is their mean, and `reward_deviation` their
    standard deviation.

    \b
    Examples:
      gshf-release reward score answers.jsonl --model my-reward-model
      gshf-release reward score answers.parquet --model rm-1 --model rm-2 --out scored.parquet
      gshf-release reward score answers.jsonl --model python:my_package.rewards:brevity --json
    """
    from gshf_release.rewards import Inference
    from gshf_release.rewards.models import open_named, scoring
    from gshf_release.rewards.scoring import check_output, read_answers, score_rows, summary, write_scores

    target = out or file.with_name(f"{file.name.split('.')[0]}.scores.jsonl")
    check_output(target, file)
    where = _open_profile(profile)
    rows = read_answers(file, on_bad_row=on_bad_row, split=split)
    model = scoring(open_named(models, kind, Inference.of(where)))
    rows, scores = score_rows(model, rows, on_bad_row=on_bad_row)
    write_scores(rows.values, scores, target)
    found = summary(rows.values, scores)
    folded = getattr(model, "folded", 0)
    if as_json:
        document = {"models": list(models), "scores": str(target), "skipped_rows": len(rows.bad), "bad_rows": rows.bad}
        print_json(document | {"folded_system_turns": folded} | found)
        return
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    show(
        f"{found['n']} answers: mean {found['mean']:.3f}{error}, median {found['p50']:.3f}, "
        f"from {found['minimum']:.3f} to {found['maximum']:.3f}; {len(rows.bad)} bad rows skipped"
    )
    if found["correlation_with_characters"] is not None:
        show(f"Correlation of reward and length in characters: {found['correlation_with_characters']:.2f}")
    if "mean_deviation" in found:
        show(f"Standard deviation across {len(models)} models, on average: {found['mean_deviation']:.3f}")
    if folded:
        show(f"The template takes no system turn: {folded} were folded into the first user turn.")
    say(f"Scores: {shown_path(target)}")


@command.command(name="agreement")
@click.argument("judgments", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_options
@click.option("--sample", type=click.IntRange(1), help="Only this many instructions, drawn by --seed [all].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--judge", default="stored judgments", show_default=True, help="What the judge is called in the results.")
@bad_row_option
@profile_option
@json_option
def agreement(
    judgments: tuple[Path, ...],
    models: tuple[str, ...],
    kind: str,
    sample: int | None,
    seed: int,
    judge: str,
    on_bad_row: Any,
    profile: str,
    as_json: bool,
) -> None:
    """Compare a reward model with a judge's comparisons in JUDGMENTS (AlpacaEval annotation files), as an outside check.

    Judgments that take no side are left out and counted. Beside the agreement stand its baselines: the longer answer, and the
    side that wins more often. Do not train on the judgments you check with.

    \b
    Examples:
      gshf-release reward agreement annotations.json --model my-reward-model
      gshf-release reward agreement a.json.gz b.json.gz --model my-preference-model --kind pairwise --sample 100
    """
    from gshf_release.rewards import Inference
    from gshf_release.rewards import agreement as work
    from gshf_release.rewards.models import open_named

    where = _open_profile(profile)
    rows = work.read_judgments(judgments, on_bad_row=on_bad_row)
    drawn = work.sample(rows.values, sample, seed)
    model = open_named(models, kind, Inference.of(where))
    kept = work.usable(model, drawn)
    name = " + ".join(Path(entry).name for entry in models)
    cells = work.cells(kept.judged, work.margins(model, kept.judged), row=name, judge=judge)
    if as_json:
        counts = {"judgments": len(drawn), "compared": len(kept.judged), "left_out": kept.left_out}
        results = [entry.model_dump(exclude_defaults=True) for entry in cells]
        print_json(counts | {"skipped_rows": len(rows.bad), "bad_rows": rows.bad, "results": results})
        return
    left_out = ", ".join(f"{count} {reason}" for reason, count in kept.left_out.items() if count) or "none"
    show(f"{len(kept.judged)} of {len(drawn)} judgments compared; left out: {left_out}; {len(rows.bad)} bad rows")
    _show_cells(cells)
