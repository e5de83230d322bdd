"""Computes what else might explain a gain over the base: longer answers, or a pattern that the policy has taken up.

The paired difference in score is regressed on the paired difference in length (or in the use of the pattern), prompt by prompt.
The line's value at no difference is the gain that is left at equal length (at equal use): near zero if the gain came with the
length, near the gain itself if it did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gshf_release.data import statistics
from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics import text_statistics
from gshf_release.diagnostics.row_metrics import REPETITION_RISE, Scores, by_decoding, repetition

RISE: Mapping[text_statistics.Kind, float] = {"opening": 30.0, "phrase": 30.0, "line start": 30.0, "word": 5.0}
"""Percentage points from which a rise counts as a pattern. assumption: nearly a third of all answers is what a reader notices;
`the` is about 5% of all words of English, so a word that rises by as much is everywhere."""
TRACKS = 0.5
"""Share of the variance of the gains (R squared) that goes with the use of a pattern, from which a smaller rise counts too: the
reward then pays for little else. assumption: the patterns that rose most in 21 iterations under rewards that were not planted
(`stand-in-long`, seeds 4 to 9, and RAFT) reached 0.16; a reward for one word reached 1.0 when it had risen by 2 points."""
LITTLE = 0.5
"""Share of the gain below which little is left: the explanation then accounts for more than everything else together."""
TRACKED = "variance of gain with pattern"
WHERE_ENDED = "gain where the base ended"
NOT_ESTIMABLE = (
    "not to be told from the gain: all answers differ from the base's by the same amount, or there are too few"
)


def explanation_cells(
    answers: Sequence[Sample],
    base_answers: Sequence[Sample],
    scores: Mapping[str, tuple[Scores, Scores]],
    *,
    table: str,
    row: str,
    artefact: str,
) -> list[Cell]:
    """Return, per decoding, the gains left at equal length and at equal use of the pattern, that pattern, and repetition.

    Args:
        answers: The policy's.
        base_answers: The base's; what it was not asked at the same decoding is left out.
        scores: `{judge: (scores of the policy, scores of the base)}`; the first judge is the one that training optimised.
        table: The set of prompts.
        row: The iteration.
        artefact: Where the answers are.
    """
    counterparts = {(answer.prompt_id, answer.sample_index): answer for answer in base_answers}
    cells = []
    for decoding, chosen in by_decoding(answers):
        pairs = [
            (answer, counterparts[key])
            for answer in chosen
            if (key := (answer.prompt_id, answer.sample_index)) in counterparts
        ]
        if not pairs:
            continue
        gains = {judge: _gains(pairs, *tables) for judge, tables in scores.items()}
        place = {"table": table, "row": row, "decoding": decoding, "artefact": artefact, "baseline": "base"}
        longer = [float(len(own.completion_ids) - len(base.completion_ids)) for own, base in pairs]
        cells += [_left(gain, longer, "gain at equal length", judge=judge, **place) for judge, gain in gains.items()]
        own, other = (repetition(side) for side in zip(*pairs, strict=True))
        rise = statistics.paired_difference(own, other)
        cells.append(cell(rise, metric=REPETITION_RISE, unit="percentage points", **place))
        ended = [base.finish_reason == "stop" for _, base in pairs]
        cells += [_where_ended(gain, ended, judge=judge, **place) for judge, gain in gains.items() if any(ended)]
        pattern = strongest(
            [own.text for own, _ in pairs], [base.text for _, base in pairs], next(iter(gains.values()))
        )
        if pattern is not None:
            cells += _pattern_cells(pattern, gains, place)
    return cells


def strongest(own: Sequence[str], base: Sequence[str], gains: Sequence[float]) -> text_statistics.Pattern | None:
    """Return the pattern most worth suspecting.

    Of the patterns that rose enough to count (`RISE`), or rose and go with the gains (`TRACKS`), the one at whose equal use
    least of the gain is left; one that cannot be told from the gain comes behind those that leave little, and before those that
    leave much. If none counts, the one that came closest. None if neither side has any words.
    """
    patterns = text_statistics.risen(own, base)
    counting = [
        pattern
        for pattern in patterns
        if pattern.rise >= (RISE[pattern.kind] if _accounts_for(pattern, gains) < TRACKS else 0)
    ]
    if not counting:
        return max(patterns, key=lambda pattern: pattern.rise / RISE[pattern.kind], default=None)
    little = LITTLE * abs(statistics.mean(gains).value)

    def left(pattern: text_statistics.Pattern) -> float:
        estimate = statistics.mean_at_zero(gains, _differences(pattern))
        return little if estimate is None else abs(estimate.value)

    return min(counting, key=left)


def _gains(pairs: Sequence[tuple[Sample, Sample]], own: Scores, base: Scores) -> list[float]:
    return [
        own[answer.prompt_id, answer.sample_index] - base[other.prompt_id, other.sample_index]
        for answer, other in pairs
    ]


def _accounts_for(pattern: text_statistics.Pattern, gains: Sequence[float]) -> float:
    """Return the share of the gains' variance that goes with the use of the pattern: the square of Pearson's correlation."""
    correlation = statistics.pearson(_differences(pattern), gains)
    return 0.0 if correlation is None else correlation**2


def _differences(pattern: text_statistics.Pattern) -> list[float]:
    return [own - base for own, base in zip(pattern.own, pattern.base, strict=True)]


def _pattern_cells(
    pattern: text_statistics.Pattern, gains: Mapping[str, list[float]], place: Mapping[str, str]
) -> list[Cell]:
    note = f'{pattern.kind} "{pattern.key}"'
    unit = "% of words" if pattern.kind == "word" else "% of answers"
    own, base = pattern.uses
    use = statistics.mean(own)
    rise = statistics.paired_difference(own, base)
    differences = _differences(pattern)
    return [
        cell(use, metric=f"use of {pattern.kind}", unit=unit, note=note, **place),
        cell(rise, metric=f"rise of {pattern.kind}", unit="percentage points", note=note, **place),
        *(_left(gain, differences, "gain at equal pattern", judge=judge, **place) for judge, gain in gains.items()),
        *(
            Cell(metric=TRACKED, judge=judge, value=_accounts_for(pattern, gain), n=len(gain), note=note, **place)
            for judge, gain in gains.items()
        ),
    ]


def _where_ended(gains: Sequence[float], ended: Sequence[bool], **place: str) -> Cell:
    """Return the gain on the prompts where the base's own answer ended within the limit.

    Where it was broken off, a policy may gain by learning to finish, which is more than length but less than a better answer.
    """
    return cell(
        statistics.mean([gain for gain, whole in zip(gains, ended, strict=True) if whole]), metric=WHERE_ENDED, **place
    )


def _left(gains: Sequence[float], differences: Sequence[float], metric: str, **place: str) -> Cell:
    estimate = statistics.mean_at_zero(gains, differences)
    if estimate is None:
        return Cell(metric=metric, value=None, n=len(gains), note=NOT_ESTIMABLE, **place)
    return cell(estimate, metric=metric, **place)
