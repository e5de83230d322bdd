"""AlpacaEval 2's numbers from stored judgments: one model, one judge, one baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval import length_control
from gshf_release.evaluation.alpaca_eval.annotations import BASELINE, JUDGE, Annotation
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData, Array, is_complete_in_order
from gshf_release.evaluation.alpaca_eval.length_control import LengthControlled
from gshf_release.evaluation.alpaca_eval.win_rate import win_rate
from gshf_release.evaluation.verdicts import reading
from gshf_release.prompts.benchmark_files import GAMED_BASELINES

PUBLISHED = "length_controlled_v1"
INCOMPLETE = "length_controlled_v1, incomplete"
HYBRID = "hybrid"
NONE = "none"
SET_SIZE = 805
"""Instructions of AlpacaEval."""
COMPLETE = 0.99
"""Share of the set that a file must judge to have the published label: files behind the leaderboard lack up to 3 of 805."""
LEAST = 0.5
"""Share of the set below which no length-controlled win rate is given: mostly borrowed parts would speak."""


@dataclass(frozen=True, slots=True)
class AlpacaEvalScore:
    """The numbers of one model; rates and errors in percent, lengths in characters."""

    model: str
    judge: str
    baseline: str
    win_rate: float
    standard_error: float | None
    length_controlled_winrate: float | None
    lc_standard_error: float | None
    avg_length: int
    n_total: int
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_null: int
    """Rows without a judgment."""
    n_missing: int | None
    """Instructions of the set without a row; None for rows of another set, or if the set is not known."""
    n_duplicates: int
    """Earlier rows of an instruction that has a later one; they count nowhere."""
    discrete_win_rate: float
    lc_low: float | None = None
    """Least length-controlled win rate over equally good regularisation strengths."""
    lc_high: float | None = None
    lc_regularisation: float | None = None
    """The strength C that cross-validation chose."""
    lc_label: str = NONE
    """`length_controlled_v1`, `length_controlled_v1, incomplete`, `hybrid` (nothing borrowed from the official judge and
    baseline), or `none`."""
    lc_rule: str = ""
    """Whether difficulties go by `instruction` or, as the library has it, by row `position`; empty for a hybrid."""
    lc_by_position: float | None = None
    """The length-controlled win rate by row position, as published, if that rule can be applied."""
    lc_by_position_low: float | None = None
    lc_by_position_high: float | None = None
    lc_by_instruction: float | None = None
    lc_difference: float | None = None
    """By position minus by instruction."""
    lc_reason: str = ""
    """Why there is no length-controlled win rate, or what makes it a hybrid or incomplete."""
    data: str = "not used"
    """`verified`, `missing`, `unverified: FILE, ...` or `not used`."""
    price: float | None = None
    """US dollars that the judgments cost, if recorded."""
    doubts: dict[str, int] = field(default_factory=dict)
    """`{what makes one doubt a preference: rows}`, of those that count."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _LengthControl:
    """Records what is said about the length-controlled win rate."""

    fit: LengthControlled | None = None
    label: str = NONE
    rule: str = ""
    by_position: LengthControlled | None = None
    by_instruction: LengthControlled | None = None
    reason: str = ""
    data: str = "not used"
    missing: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """By position minus by instruction, if both are known."""
        if self.by_position is None or self.by_instruction is None:
            return None
        return self.by_position.win_rate - self.by_instruction.win_rate


def needs_data(rows: Sequence[Annotation]) -> bool:
    """Return whether a model's rows have the official judge and baseline, so that borrowed parts apply to them."""
    return not _foreign_names(rows) and rows[0].generator_2 != rows[0].generator_1


def score(rows: Sequence[Annotation], data: AlpacaEvalData, as_published: bool = False) -> AlpacaEvalScore:
    """Return AlpacaEval 2's numbers of one model.

    Of several rows of one instruction the last counts, as the newest does in MT-Bench (annotations.json has no times).

    Args:
        rows: Judgments of one model by one judge against one baseline.
        data: The borrowed parts; not looked at for another judge or baseline.
        as_published: Give each row the difficulty of its position in the file, as the library does. The published numbers of
            models with missing rows come out that way only, and their length is the mean over all 805 answers, those without a
            judgment counted as empty.

    Raises:
        DataError: There is no judgment; the rows mix models, judges or baselines; or an instruction is foreign to the set.
    """
    if not rows:
        raise DataError("There are no rows to score.")
    if len({(row.generator_2, row.annotator, row.generator_1) for row in rows}) > 1:
        raise DataError(f"{rows[0].place}: the rows mix models, judges or baselines.", hint="Score each on its own.")
    distinct, warnings = _last_of_each(rows)
    counts = win_rate(distinct)
    found = _length_control(distinct, data, as_published)
    prices = [row.price for row in distinct if row.price is not None]
    characters = sum(len(row.output_2) for row in distinct)
    doubts = reading.count(row.doubts for row in distinct if row.preference is not None)
    whole = as_published and found.label == PUBLISHED
    return AlpacaEvalScore(
        model=rows[0].generator_2,
        judge=rows[0].annotator,
        baseline=rows[0].generator_1,
        win_rate=counts.win_rate,
        standard_error=counts.standard_error,
        length_controlled_winrate=found.fit.win_rate if found.fit else None,
        lc_standard_error=found.fit.standard_error if found.fit else None,
        avg_length=characters // (SET_SIZE if whole else len(distinct)),
        n_total=counts.n_total,
        n_wins=counts.n_wins,
        n_wins_base=counts.n_wins_base,
        n_draws=counts.n_draws,
        n_null=counts.n_null,
        n_missing=found.missing,
        n_duplicates=len(rows) - len(distinct),
        discrete_win_rate=counts.discrete_win_rate,
        lc_low=found.fit.low if found.fit else None,
        lc_high=found.fit.high if found.fit else None,
        lc_regularisation=found.fit.regularisation if found.fit else None,
        lc_label=found.label,
        lc_rule=found.rule,
        lc_by_position=found.by_position.win_rate if found.by_position else None,
        lc_by_position_low=found.by_position.low if found.by_position else None,
        lc_by_position_high=found.by_position.high if found.by_position else None,
        lc_by_instruction=found.by_instruction.win_rate if found.by_instruction else None,
        lc_difference=found.difference,
        lc_reason=found.reason,
        data=found.data,
        price=sum(prices) if prices else None,
        doubts=doubts,
        warnings=(
            *warnings,
            *_doubts(distinct),
            *([f"{counts.n_null} rows have no judgment; the win rate leaves them out."] if counts.n_null else []),
            *(f"{sentence}." for sentence in reading.warnings(doubts, len(distinct))),
            *found.warnings,
        ),
    )


def _length_control(rows: list[Annotation], data: AlpacaEvalData, as_published: bool) -> _LengthControl:
    if rows[0].generator_2 == rows[0].generator_1:
        return _LengthControl(
            LengthControlled(50.0, 0.0, 50.0, 50.0, None, ()), PUBLISHED, reason="the baseline itself"
        )
    foreign = _foreign_names(rows)
    if foreign:
        return _completeness(rows, data, _hybrid(rows, foreign))
    if data.missing or data.gamed is None or data.difficulty is None:
        reason = data.missing or "the borrowed parts are not at hand"
        return _completeness(rows, data, _LengthControl(reason=reason, data="missing"))
    if _is_another_set(rows, data):
        return _hybrid(rows, "another instruction set")
    return _completeness(rows, data, _published(rows, data, as_published))


def _completeness(rows: list[Annotation], data: AlpacaEvalData, found: _LengthControl) -> _LengthControl:
    """Say how much of the set is missing; part of it has no published label, and less than half no number."""
    if found.label == HYBRID and not data.instructions:
        count = len(rows)
        told = f"There are {count} rows, AlpacaEval has {SET_SIZE} instructions: the numbers are not of the whole set."
        return found if count == SET_SIZE else replace(found, warnings=(*found.warnings, told))
    size = len(data.instructions) or (SET_SIZE if data.difficulty is None else len(data.difficulty))
    missing = max(0, size - len(rows))
    told = f"{missing} of {size} instructions are missing"
    found = replace(found, missing=missing, warnings=(*found.warnings, *([f"{told}."] if missing else [])))
    judged = sum(row.preference is not None for row in rows)
    if found.label != PUBLISHED or judged >= COMPLETE * size:
        return found
    least = math.ceil(LEAST * size)
    reason = f"{judged} of {size} instructions are judged"
    if judged >= least:
        return replace(found, label=INCOMPLETE, reason=reason)
    reason += f", a length-controlled win rate needs {least}"
    return replace(found, fit=None, by_position=None, by_instruction=None, label=NONE, reason=reason)


def _published(rows: list[Annotation], data: AlpacaEvalData, as_published: bool) -> _LengthControl:
    """Fit with the borrowed parts, by instruction and, where it differs or is asked for, by position."""
    assert data.gamed is not None  # checked by the caller; the type does not say so
    assert data.difficulty is not None
    places = _places(rows, data)
    if places is not None and max(places) >= len(data.difficulty):
        known = f"for {len(data.difficulty)} instructions, row {max(places) + 1} of the evaluation set is needed"
        raise DataError(f"{GAMED_BASELINES.name} has difficulties {known}.", hint="Bring the complete file.")
    warnings = list(data.warnings)
    by_instruction = by_position = None
    in_order = places == list(range(len(rows)))
    if places is not None:
        order = sorted(range(len(rows)), key=lambda number: places[number])
        by_instruction = _fit([rows[number] for number in order], data, [places[number] for number in order])
    if in_order:
        by_position = by_instruction
    elif len(rows) <= len(data.difficulty):
        by_position = _fit(rows, data, list(range(len(rows))))
    chosen = by_position if as_published else by_instruction
    reason = "" if chosen else _no_rule(rows, data, as_published)
    if places is None and as_published and chosen:
        warnings.append("The evaluation set is not at hand: whether the rows are AlpacaEval's was not checked.")
    if by_position and by_instruction and not in_order:
        change = by_position.win_rate - by_instruction.win_rate
        warnings.append(
            f"The rows are not the evaluation set in order: difficulties by row position, as published, give "
            f"{by_position.win_rate:.2f} instead of {by_instruction.win_rate:.2f} by instruction ({change:+.2f})."
        )
    return _LengthControl(
        fit=chosen,
        label=PUBLISHED if chosen else NONE,
        rule="position" if as_published else "instruction",
        by_position=by_position,
        by_instruction=by_instruction,
        reason=reason,
        data=data.label,
        warnings=tuple(warnings),
    )


def _fit(rows: list[Annotation], data: AlpacaEvalData, places: list[int]) -> LengthControlled:
    assert data.gamed is not None
    assert data.difficulty is not None
    wins, difference = _wins(rows), _difference(rows)
    return length_control.solve(length_control.published_problem(wins, difference, data.difficulty[places], data.gamed))


def _hybrid(rows: list[Annotation], why: str) -> _LengthControl:
    """Fit on these rows alone: difficulties and the gamed baseline belong to the official judge, baseline and set."""
    ordered = sorted(rows, key=lambda row: (row.instruction, row.output_2))
    problem = length_control.minimal_problem(_wins(ordered), _difference(ordered))
    try:
        fit = length_control.solve(problem)
    except ValueError as error:
        return _LengthControl(reason=f"{why}; {error}")
    found = replace(fit, standard_error=length_control.intercept_error(problem, fit.coefficients))
    warning = (
        f"Hybrid ({why}): the length-controlled win rate is fitted without AlpacaEval's difficulties and gamed baseline; "
        "it does not compare with the leaderboard."
    )
    return _LengthControl(found, HYBRID, reason=why, warnings=(warning,))


def _foreign_names(rows: Sequence[Annotation]) -> str:
    """Return what is not official about the judge or the baseline."""
    parts = []
    if rows[0].annotator != JUDGE:
        parts.append(f"another judge, {rows[0].annotator or 'not named'}")
    if rows[0].generator_1 != BASELINE:
        parts.append(f"another baseline, {rows[0].generator_1}")
    return "; ".join(parts)


def _is_another_set(rows: list[Annotation], data: AlpacaEvalData) -> bool:
    """Return whether most instructions are not AlpacaEval's.

    Raises:
        DataError: Only some are foreign, which speaks of a mistake; names the first.
    """
    known = set(data.instructions)
    if not known:
        return False
    foreign = [row for row in rows if row.instruction not in known]
    if 2 * len(foreign) > len(rows):
        return True
    if foreign:
        raise DataError(
            f"{foreign[0].place}: the instruction is not one of AlpacaEval's, as in {len(foreign)} of {len(rows)} rows; its "
            "difficulty is not known.",
            hint="Remove such rows, or write their instructions exactly as in the evaluation set.",
        )
    return False


def _places(rows: list[Annotation], data: AlpacaEvalData) -> list[int] | None:
    """Return each row's place in the evaluation set, or None if it cannot be known."""
    if data.instructions:
        place_of = {instruction: place for place, instruction in enumerate(data.instructions)}
        return [place_of[row.instruction] for row in rows]
    if is_complete_in_order([row.instruction for row in rows]):
        return list(range(len(rows)))
    return None


def _no_rule(rows: list[Annotation], data: AlpacaEvalData, as_published: bool) -> str:
    if as_published:
        known = 0 if data.difficulty is None else len(data.difficulty)
        return f"the position rule has difficulties for {known} rows, there are {len(rows)}"
    return (
        "the rows are not the complete evaluation set in order, and the set (alpaca_eval_gpt4_baseline.json), which tells "
        "their difficulties, is not at hand; name its folder with --data, or take the position rule with --as-published"
    )


def _last_of_each(rows: Sequence[Annotation]) -> tuple[list[Annotation], list[str]]:
    """Return the last row of each instruction, in the order of the first ones, and what was left out."""
    kept: dict[str, Annotation] = {}
    copies = contradicting = 0
    for row in rows:
        earlier = kept.get(row.instruction)
        if earlier is not None:
            same = (earlier.output_1, earlier.output_2, earlier.preference) == (
                row.output_1,
                row.output_2,
                row.preference,
            )
            copies, contradicting = copies + same, contradicting + (not same)
        kept[row.instruction] = row
    warnings = []
    if copies:
        warnings.append(f"{copies} of {len(rows)} rows repeat an earlier one exactly; each counts once.")
    if contradicting:
        warnings.append(
            f"{contradicting} of {len(rows)} rows have another judgment or answer further down for the same instruction; the "
            "last counts. AlpacaEval's library, which averages all of them, would print another number."
        )
    return list(kept.values()), warnings


def _doubts(rows: Sequence[Annotation]) -> list[str]:
    """Return what speaks for a file that does not mean what AlpacaEval means by its preferences."""
    found = []
    zeros = sum(row.coded_zero for row in rows)
    if zeros:
        found.append(
            f"{zeros} of {len(rows)} preferences are 0 and count as draws, as old versions of AlpacaEval wrote them."
        )
    judged = [row.preference for row in rows if row.preference is not None]
    if len(judged) > 1 and set(judged) == {1.0}:
        found.append(
            f"All {len(judged)} preferences are 1, a win of the baseline; if 1 is to mean the model, the scale is another one."
        )
    if rows[0].generator_2 == rows[0].generator_1:
        found.append(f"{rows[0].generator_2} is compared with itself: the win rate shows the judge's errors alone.")
    return found


def _wins(rows: list[Annotation]) -> Array:
    return np.asarray([np.nan if row.win is None else row.win for row in rows], dtype=np.float64)


def _difference(rows: list[Annotation]) -> Array:
    return length_control.standardised_difference([row.output_1 for row in rows], [row.output_2 for row in rows])
