"""Cells over a set of answers, the same for validation and evaluation: score, length, and what the texts look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gshf_release.data import statistics
from gshf_release.data.records import RuleCheck, Sample, Score
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics import text_statistics

Scores = Mapping[tuple[str, int], float]
"""`{(prompt id, sample index): score}`."""
RULE_KEPT = "kept: "
"""Begins the metric of a rule: percent of responses that keep it."""
ALL_RULES_KEPT = "all rules kept"
DISTINCT = (1, 2, 3)
REPETITION = "repetition"
"""Metric: percent of an answer's 4-grams of tokens that have stood in it before, mean over answers."""
REPETITION_RISE = "rise of repetition"
"""Metric: its paired difference from the base's, in percentage points."""


def score_table(paths: Sequence[Path]) -> dict[tuple[str, int], float]:
    """Return `{(prompt id, sample index): score}` of score files."""
    return {(score.prompt_id, score.sample_index): score.reward for score in Score.read(*paths)}


def by_decoding(answers: Sequence[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    """Yield `(decoding, its answers)` in order of first appearance."""
    for decoding in dict.fromkeys(answer.decoding for answer in answers):
        yield decoding, [answer for answer in answers if answer.decoding == decoding]


def reward_cells(
    answers: Sequence[Sample], own: Scores, base: Scores, *, judge: str, table: str, row: str, artefact: str
) -> list[Cell]:
    """Return the mean score per decoding and its paired difference from the base at the same decoding."""
    cells = []
    for decoding, chosen in by_decoding(answers):
        keys = [(answer.prompt_id, answer.sample_index) for answer in chosen]
        place = {"table": table, "row": row, "decoding": decoding, "judge": judge, "artefact": artefact}
        cells.append(cell(statistics.mean([own[key] for key in keys]), metric="score", **place))
        if row != "base" and all(key in base for key in keys):
            gain = statistics.paired_difference([own[key] for key in keys], [base[key] for key in keys])
            cells.append(cell(gain, metric="gain over base", baseline="base", **place))
    return cells


def rule_cells(
    own: Sequence[RuleCheck], base: Sequence[RuleCheck], *, judge: str, table: str, row: str, artefact: str
) -> list[Cell]:
    """Return, per decoding, how many responses keep each rule that their prompt states, and how many keep all of theirs.

    Beside each percentage stands its paired difference from the base on the same prompts, in percentage points. A prompt that
    states one kind of rule twice counts once, with the share of the two that is kept.
    """
    theirs = _kept(base)
    cells = []
    for (decoding, rule), kept in _kept(own).items():
        place = {"table": table, "row": row, "decoding": decoding, "judge": judge, "artefact": artefact}
        percent = [100 * share for share in kept.values()]
        cells.append(cell(statistics.mean(percent), metric=rule, unit="%", **place))
        other = theirs.get((decoding, rule), {})
        if row != "base" and kept.keys() == other.keys():
            difference = statistics.paired_difference(percent, [100 * other[key] for key in kept])
            cells.append(cell(difference, metric=f"{rule}, gain", unit="percentage points", baseline="base", **place))
    return cells


def _kept(checks: Sequence[RuleCheck]) -> dict[tuple[str, str], dict[str, float]]:
    """Return `{(decoding, metric): {prompt id: share kept}}`."""
    found: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for check in checks:
        found[check.decoding, RULE_KEPT + check.rule][check.prompt_id].append(check.kept)
        found[check.decoding, ALL_RULES_KEPT][check.prompt_id].append(check.kept)
    return {
        (decoding, metric): {
            prompt: float(all(kept)) if metric == ALL_RULES_KEPT else sum(kept) / len(kept)
            for prompt, kept in by_prompt.items()
        }
        for (decoding, metric), by_prompt in found.items()
    }


def length_cells(answers: Sequence[Sample], *, table: str, row: str, artefact: str) -> list[Cell]:
    """Return mean and median length in tokens and the share of responses cut by the limit, per decoding."""
    cells = []
    for decoding, chosen in by_decoding(answers):
        tokens = [len(answer.completion_ids) for answer in chosen]
        cut = [answer.finish_reason == "length" for answer in chosen]
        place = {"table": table, "row": row, "decoding": decoding, "artefact": artefact}
        cells.append(cell(statistics.mean(tokens), metric="length", unit="tokens", **place))
        median = float(np.median(tokens))
        cells.append(Cell(metric="median length", value=median, n=len(tokens), unit="tokens", **place))
        cells.append(cell(statistics.win_rate(cut), metric="cut", unit="%", **place))
    return cells


def text_cells(answers: Sequence[Sample], *, table: str, row: str, artefact: str) -> list[Cell]:
    """Return distinct-1 to distinct-3, the share of answers that stand there twice, and repetition, per decoding.

    For the first two one answer a prompt is compared with the answers to the other prompts (distinct-n: arXiv 1510.03055);
    repetition is inside an answer (see `texts.repetition`).
    """
    cells = []
    for decoding, chosen in by_decoding(answers):
        found = [answer.text for answer in chosen]
        place = {"table": table, "row": row, "decoding": decoding, "artefact": artefact}
        cells += [
            Cell(metric=f"distinct-{n}", value=text_statistics.distinct(found, n), n=len(found), unit="share", **place)
            for n in DISTINCT
        ]
        cells.append(cell(statistics.win_rate(text_statistics.repeated(found)), metric="duplicates", unit="%", **place))
        cells.append(cell(statistics.mean(repetition(chosen)), metric=REPETITION, unit="%", **place))
    return cells


def repetition(answers: Sequence[Sample]) -> list[float]:
    """Return how much each answer repeats itself, in percent."""
    return [100 * text_statistics.repetition(answer.completion_ids) for answer in answers]
