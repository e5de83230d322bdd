"""MT-Bench's numbers from stored judgments: FastChat's definitions, but of several judgments of one answer the newest counts.

FastChat's show_result averages whatever lines a file has, so a run that was repeated into the same file gives a number that is
neither the old nor the new one. Judgments without a rating (-1) are left out there and here, a rating outside 1-10 is none
here; the lower bound shows what that may hide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gshf_release.data.statistics import clustered_error
from gshf_release.errors import DataError
from gshf_release.evaluation.mt_bench.judgments import Judgment, PairJudgment
from gshf_release.evaluation.mt_bench.ratings import UNPARSED, WORST, on_scale
from gshf_release.evaluation.verdicts import reading

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
FIRST_QUESTION = 81
QUESTIONS_A_CATEGORY = 10
OTHER = "other"
EXPECTED = 2 * QUESTIONS_A_CATEGORY * len(CATEGORIES)
"""Judgments of a complete run: 80 questions of two turns."""
POINTS = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""What a comparison adds to the adjusted win rate."""

Row = TypeVar("Row", Judgment, PairJudgment)


@dataclass(frozen=True, slots=True)
class MTBenchScore:
    """The ratings of one model by one judge, from 1 to 10."""

    model: str
    judge: str
    first_turn: float | None
    """None if no first answer has a rating."""
    second_turn: float | None
    average: float | None
    """Mean over all ratings of both turns, which is not the mean of the two turns if one has more ratings."""
    first_turn_error: float | None
    second_turn_error: float | None
    standard_error: float | None
    """Of the average; both turns of a question go together. None below two questions, as of the turns."""
    lower_bound: float | None
    """The average if each judgment without a rating were a 1."""
    n: int
    """Ratings in the average."""
    n_unparsed: int
    """Judgments without a rating, left out of the average."""
    n_duplicates: int
    """Older judgments of an answer that was judged again, left out altogether."""
    n_missing: int
    """Judgments of MT-Bench's questions that were never made; 0 for questions of another set."""
    by_category: dict[str, float]
    """Mean over the ratings of both turns, in the benchmark's order; `other` for questions that are not MT-Bench's."""
    fastchat_average: float | None
    """What FastChat's show_result prints for the same lines, duplicates counted."""
    doubts: dict[str, int] = field(default_factory=dict)
    """`{what makes one doubt a verdict: judgments}`, of those that count."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MTBenchPairScore:
    """Records how one model fared in pairwise comparisons by one judge; rates from 0 to 1, as FastChat has them."""

    model: str
    judge: str
    win: int
    tie: int
    """Ties, and comparisons that the swapped order turned round."""
    loss: int
    win_rate: float | None
    """None if every comparison failed."""
    loss_rate: float | None
    adjusted_win_rate: float | None
    """A tie counts half."""
    standard_error: float | None
    """Of the adjusted win rate; the games of a question go together. None below two questions."""
    n: int
    n_errors: int
    """Comparisons that the judge failed on, left out."""
    n_duplicates: int
    n_missing: int
    """Games of MT-Bench's questions that were never played, against all opponents together."""
    opponents: tuple[str, ...]
    doubts: dict[str, int] = field(default_factory=dict)
    """`{what makes one doubt a verdict: comparisons}`, of those that count."""
    warnings: tuple[str, ...] = ()


def category(question_id: int) -> str:
    """Return the category of a question: ten each from 81 to 160."""
    number, _ = divmod(question_id - FIRST_QUESTION, QUESTIONS_A_CATEGORY)
    return CATEGORIES[number] if 0 <= number < len(CATEGORIES) else OTHER


def score(judgments: Sequence[Judgment]) -> list[MTBenchScore]:
    """Return a row for each model and judge, in the order of their first judgment.

    Of judgments with the same model, judge, question, turn and repeat the newest counts, the later line if the times are equal.
    """
    found: dict[tuple[str, str], list[Judgment]] = {}
    for one in judgments:
        found.setdefault((one.model, one.judge), []).append(one)
    return [_score(rows) for rows in found.values()]


def score_pairs(judgments: Sequence[PairJudgment]) -> list[MTBenchPairScore]:
    """Return a row for each judge and model, in the order of their first comparison; the newest of several counts.

    Comparisons of a model with itself say nothing of it and are left out.

    Raises:
        DataError: There are no others.
    """
    found: dict[tuple[str, str], list[PairJudgment]] = {}
    alone: Counter[str] = Counter(one.model_1 for one in judgments if one.model_1 == one.model_2)
    for one in judgments:
        if one.model_1 != one.model_2:
            for model in (one.model_1, one.model_2):
                found.setdefault((model, one.judge), []).append(one)
    if alone and not found:
        raise DataError(
            f"{judgments[0].place}: in every comparison model_1 and model_2 are the same, {' or '.join(alone)}.",
            hint="Give comparisons of two models: one that is compared with itself has no score.",
        )
    left_out = [f"{count} comparisons of {model} with itself are left out." for model, count in alone.items()]
    return [_score_pairs(model, rows, left_out) for (model, _), rows in found.items()]


def _score(rows: list[Judgment]) -> MTBenchScore:
    newest = _newest(rows, lambda one: (one.question_id, one.turn, one.repeat))
    rated = [one for one in newest if one.parsed]
    values = [one.score for one in rated]
    unparsed = len(newest) - len(rated)
    groups: dict[str, list[float]] = {name: [] for name in (*CATEGORIES, OTHER)}
    for one in rated:
        groups[category(one.question_id)].append(one.score)
    fastchat = _mean([one.in_file for one in rows if one.in_file != UNPARSED])
    doubts = reading.count(one.doubts for one in rated)
    return MTBenchScore(
        model=rows[0].model,
        judge=rows[0].judge,
        first_turn=_mean([one.score for one in rated if one.turn == 1]),
        second_turn=_mean([one.score for one in rated if one.turn == 2]),
        average=_mean(values),
        first_turn_error=question_error([(one.question_id, one.score) for one in rated if one.turn == 1]),
        second_turn_error=question_error([(one.question_id, one.score) for one in rated if one.turn == 2]),
        standard_error=question_error([(one.question_id, one.score) for one in rated]),
        lower_bound=_mean(values + [WORST] * unparsed),
        n=len(rated),
        n_unparsed=unparsed,
        n_duplicates=len(rows) - len(newest),
        n_missing=_missing(newest),
        by_category={name: math.fsum(scores) / len(scores) for name, scores in groups.items() if scores},
        fastchat_average=fastchat,
        doubts=doubts,
        warnings=tuple(_warnings(newest, len(rows) - len(newest), unparsed, fastchat)),
    )


def _warnings(newest: list[Judgment], duplicates: int, unparsed: int, fastchat: float | None) -> list[str]:
    found = []
    if duplicates:
        found.append(
            f"{duplicates} of {duplicates + len(newest)} judgments were made again later; the newest counts. FastChat, which "
            f"averages all of them, would print {_shown(fastchat)}."
        )
    if unparsed:
        found.append(f"{unparsed} of {len(newest)} judgments have no rating and are left out; see the lower bound.")
    found += _reading_warnings(newest, fastchat)
    first, last = FIRST_QUESTION, FIRST_QUESTION + QUESTIONS_A_CATEGORY * len(CATEGORIES) - 1
    outside = {one.question_id for one in newest if category(one.question_id) == OTHER}
    if outside:
        found.append(f"{len(outside)} questions are not MT-Bench's ({first}-{last}); they count in the average.")
    missing = _missing(newest)
    if missing:
        found.append(f"{missing} of MT-Bench's {EXPECTED} judgments are missing.")
    return found


def _missing(newest: Sequence[Judgment]) -> int:
    """Return how many judgments of MT-Bench's questions are not there, if any of them is."""
    answers = {(one.question_id, one.turn) for one in newest if category(one.question_id) != OTHER}
    return max(0, EXPECTED - len(answers)) if answers else 0


def _reading_warnings(newest: list[Judgment], fastchat: float | None) -> list[str]:
    """Return what is to be said about how the ratings were read."""
    found = []
    outside = [one for one in newest if not one.parsed and one.in_file != UNPARSED and not on_scale(one.in_file)]
    if outside:
        found.append(
            f"{len(outside)} ratings lie outside 1-10 and are left out as failed judgments ({outside[0].place}: "
            f"{outside[0].in_file:g}); FastChat, which counts them, would print {_shown(fastchat)}."
        )
    anew = sum(one.stored is not None for one in newest) - sum(one.stored is not None for one in outside)
    if anew:
        found.append(
            f"{anew} ratings in the file are not what the judge's answers say: FastChat's rule took them from thinking, from a "
            f"scale or from code. The answers count; FastChat would print {_shown(fastchat)}."
        )
    other = [one for one in newest if one.stated is not None]
    if other:
        found.append(
            f"{len(other)} ratings in the file are not those that the judge's texts state ({other[0].place}: "
            f"{other[0].score:g}, its text says {other[0].stated:g}); the file's count."
        )
    counts = reading.count(one.doubts for one in newest if one.parsed)
    return found + [f"{sentence}." for sentence in reading.warnings(counts, len(newest))]


def _shown(average: float | None) -> str:
    return "no average" if average is None else f"{average:.6f}"


def _score_pairs(model: str, rows: list[PairJudgment], left_out: Sequence[str] = ()) -> MTBenchPairScore:
    newest = _newest(rows, lambda one: (frozenset((one.model_1, one.model_2)), one.question_id, one.turn, one.repeat))
    played = [one for one in newest if one.played]
    outcomes = [outcome(one, model) for one in played]
    win, tie, loss = (outcomes.count(name) for name in ("win", "tie", "loss"))
    count = len(played)
    duplicates, errors = len(rows) - len(newest), len(newest) - len(played)
    missing = _missing_games(newest)
    told = [f"{lack} of MT-Bench's {EXPECTED} games between {names} are missing." for names, lack in missing.items()]
    warnings = [*left_out, *told]
    if duplicates:
        warnings.append(f"{duplicates} of {len(rows)} comparisons were made again later; the newest counts.")
    if errors:
        warnings.append(f"{errors} of {len(newest)} comparisons failed and are left out.")
    anew = sum(one.read_anew for one in newest)
    if anew:
        warnings.append(f"{anew} winners in the file are not what the judge's answers say; the answers count.")
    other = [one for one in newest if one.contradicted]
    if other:
        warnings.append(
            f"{len(other)} winners in the file are not those that the judge's texts name (first: {other[0].place}); the file's "
            "count."
        )
    doubts = reading.count(one.doubts for one in played)
    warnings += [f"{sentence}." for sentence in reading.warnings(doubts, len(newest))]
    return MTBenchPairScore(
        model=model,
        judge=rows[0].judge,
        win=win,
        tie=tie,
        loss=loss,
        win_rate=win / count if count else None,
        loss_rate=loss / count if count else None,
        adjusted_win_rate=(win + tie / 2) / count if count else None,
        standard_error=question_error(
            [(one.question_id, POINTS[name]) for one, name in zip(played, outcomes, strict=True)]
        ),
        n=len(played),
        n_errors=errors,
        n_duplicates=duplicates,
        n_missing=sum(missing.values()),
        opponents=tuple(dict.fromkeys(one.model_2 if one.model_1 == model else one.model_1 for one in newest)),
        doubts=doubts,
        warnings=tuple(warnings),
    )


def _missing_games(newest: Sequence[PairJudgment]) -> dict[str, int]:
    """Return `{"a and b": n}`: how many of MT-Bench's games were not played against each opponent."""
    found = {}
    for pair in dict.fromkeys(frozenset((one.model_1, one.model_2)) for one in newest):
        own = [one for one in newest if {one.model_1, one.model_2} == pair]
        played = {(one.question_id, one.turn) for one in own if category(one.question_id) != OTHER}
        if played and len(played) < EXPECTED:
            found[f"{own[0].model_1} and {own[0].model_2}"] = EXPECTED - len(played)
    return found


def outcome(one: PairJudgment, model: str) -> str:
    """Return how the model fared; both orders must agree on a winner."""
    if one.winner_1 == "tie" or one.winner_1 != one.winner_2:
        return "tie"
    winner = one.model_1 if one.winner_1 == "model_1" else one.model_2
    return "win" if winner == model else "loss"


def _newest(rows: list[Row], key: Any) -> list[Row]:
    """Return the newest row of each key, in the order of the keys' first rows."""
    kept: dict[Any, Row] = {}
    for row in rows:
        name = key(row)
        if name not in kept or row.timestamp >= kept[name].timestamp:
            kept[name] = row
    return list(kept.values())


def ratings_of(judgments: Sequence[Judgment]) -> dict[tuple[int, int, int], float]:
    """Return `{(question, turn, repeat): rating}` of the judgments that have one."""
    return {(one.question_id, one.turn, one.repeat): one.score for one in judgments if one.parsed}


def points_of(pairs: Sequence[PairJudgment], model: str) -> dict[tuple[int, int, int], float]:
    """Return `{(question, turn, repeat): percent}`: 100 if both orders name the model, 0 if both name the other, else 50.

    Pairs on which the judge failed in either order are left out.
    """
    played = [one for one in pairs if one.played]
    return {(one.question_id, one.turn, one.repeat): 100 * POINTS[outcome(one, model)] for one in played}


def question_error(values: Sequence[tuple[int, float]]) -> float | None:
    """Return the standard error of the mean of values, given with their questions, which are the clusters."""
    clusters: dict[int, list[float]] = {}
    for question, value in values:
        clusters.setdefault(question, []).append(value)
    return clustered_error(list(clusters.values()))


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
