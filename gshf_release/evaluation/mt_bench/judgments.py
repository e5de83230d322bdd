"""FastChat's judgment files: one JSON object a line, single ratings (`gpt-4_single.jsonl`) or pairs (`gpt-4_pair.jsonl`).

A stored rating or winner is what FastChat's rule read in the stored text. For the official judges it stands; for any other
judge the text is read again by the rule of `ratings`, so that a file gives the numbers that the judge's answers give, not those
of its thinking. A stored value that FastChat's rule does not find in the text was read by something else, and stands.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data import user_files
from gshf_release.errors import DataError
from gshf_release.evaluation.mt_bench import ratings
from gshf_release.evaluation.mt_bench.ratings import NO_WINNER, UNPARSED
from gshf_release.evaluation.verdicts.reading import answered_by, doubts_of

WINNERS = ("model_1", "model_2", "tie", NO_WINNER)
OFFICIAL_MODELS = ("gpt-4", "gpt-4-0613")
"""What files call the official judges. The authors say that their `gpt-4` was gpt-4-0613 (FastChat's issue 2284)."""
READ_HERE = ("note", "failed")
"""Keys of a row whose verdict `judging.mt_bench` read, knowing also how the reply ended."""
HINT = "Expected are FastChat's lines: question_id, model, judge, score, turn, tstamp (pairs: model_1, model_2, g1_winner)."


@dataclass(frozen=True, slots=True)
class Judgment:
    """One rating of one answer."""

    question_id: int
    model: str
    judge: str
    prompt: str
    """The judge prompt's name, e.g. `single-math-v1`; empty if not recorded."""
    turn: int
    score: float
    """The rating, -1 if the judge's text has none."""
    timestamp: float
    """Seconds since 1970; 0 if not recorded."""
    repeat: int = 0
    """Number of the repetition, if the same answer was judged several times on purpose."""
    place: str = ""
    """File and line, for messages."""
    doubts: tuple[str, ...] = ()
    """What makes one doubt the rating, of `verdicts.reading.DOUBTS`."""
    answered_by: str = ""
    """The model that the judge's server named; only rows that were judged here say it."""
    stored: float | None = None
    """The rating in the file, where the text was read otherwise; None if it is `score`."""
    stated: float | None = None
    """The rating that the text states, where `score` is the file's and another one; by no reading is it this one."""

    @property
    def parsed(self) -> bool:
        """Return whether there is a rating; a number outside 1-10 is none."""
        return ratings.on_scale(self.score)

    @property
    def in_file(self) -> float:
        """The rating in the file, which FastChat's show_result averages."""
        return self.score if self.stored is None else self.stored


@dataclass(frozen=True, slots=True)
class PairJudgment:
    """One comparison of two answers, made twice with their order swapped."""

    question_id: int
    model_1: str
    model_2: str
    judge: str
    turn: int
    winner_1: str
    """Winner of the first game: `model_1`, `model_2`, `tie` or `error`."""
    winner_2: str
    """Winner of the game in swapped order, named as in the first."""
    timestamp: float
    repeat: int = 0
    place: str = ""
    doubts: tuple[str, ...] = ()
    """What makes one doubt either game's winner, of `verdicts.reading.DOUBTS`."""
    answered_by: tuple[str, ...] = ()
    """The models that the judge's server named for the two games; only rows that were judged here say it."""
    read_anew: bool = False
    """Whether a winner is another one than the file's."""
    contradicted: bool = False
    """Whether a winner is the file's although the text, by any reading, names another one."""

    @property
    def played(self) -> bool:
        """Return whether the judge named a winner, or a tie, in both games."""
        return NO_WINNER not in (self.winner_1, self.winner_2)


def read(path: Path) -> tuple[list[Judgment], list[PairJudgment]]:
    """Return the single ratings and the pairs of a file, plain or packed with gzip; one of the two lists is usually empty.

    Raises:
        DataError: The file cannot be read, or a line is not a judgment; names the line.
    """
    singles: list[Judgment] = []
    pairs: list[PairJudgment] = []
    for place, row in user_files.rows(path):
        if isinstance(row, ValueError):
            raise DataError(f"{place} is not JSON: {row}.", hint=HINT) from row
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object, found {type(row).__name__}.", hint=HINT)
        if "g1_winner" in row:
            pairs.append(parse_pair(row, place))
        else:
            singles.append(parse(row, place))
    if not singles and not pairs:
        raise DataError(f"{path} is empty.", hint=HINT)
    return singles, pairs


def parse(row: dict[str, Any], place: str) -> Judgment:
    """Return one line of a single-rating file.

    Raises:
        DataError: A key is missing or of the wrong type.
    """
    judge, prompt = _judge(row, place)
    stored = _number(row, "score", place)
    score, doubts, stated = _rating(row, judge, stored)
    return Judgment(
        question_id=_integer(row, "question_id", place),
        model=_text(row, "model", place),
        judge=judge,
        prompt=prompt,
        turn=_turn(row, place),
        score=score,
        timestamp=_number(row, "tstamp", place) if row.get("tstamp") is not None else 0.0,
        repeat=_integer(row, "repeat", place) if "repeat" in row else 0,
        place=place,
        doubts=doubts,
        answered_by=answered_by(row),
        stored=None if score == stored else stored,
        stated=stated,
    )


def parse_pair(row: dict[str, Any], place: str) -> PairJudgment:
    """Return one line of a pair file.

    Raises:
        DataError: A key is missing or of the wrong type, or a winner is none.
    """
    winners = [_text(row, key, place) for key in ("g1_winner", "g2_winner")]
    for winner in winners:
        if winner not in WINNERS:
            raise DataError(f"{place}: the winner {winner!r} is none of {', '.join(WINNERS)}.", hint=HINT)
    judge = _judge(row, place)[0]
    first, second = (_winner(row, judge, game, stored) for game, stored in zip((1, 2), winners, strict=True))
    return PairJudgment(
        question_id=_integer(row, "question_id", place),
        model_1=_text(row, "model_1", place),
        model_2=_text(row, "model_2", place),
        judge=judge,
        turn=_turn(row, place),
        winner_1=first[0],
        winner_2=second[0],
        timestamp=_number(row, "tstamp", place) if row.get("tstamp") is not None else 0.0,
        repeat=_integer(row, "repeat", place) if "repeat" in row else 0,
        place=place,
        doubts=tuple(dict.fromkeys((*first[1], *second[1]))),
        answered_by=tuple(filter(None, (answered_by(row, "g1_"), answered_by(row, "g2_")))),
        read_anew=[first[0], second[0]] != winners,
        contradicted=first[2] or second[2],
    )


def _rating(row: dict[str, Any], judge: str, stored: float) -> tuple[float, tuple[str, ...], float | None]:
    """Return the rating of a line, the doubts about it, and the one that its text states if the file's is none of it."""
    text = row.get("judgment")
    if any(key in row for key in READ_HERE) or not isinstance(text, str):
        return stored, doubts_of(row.get("note")), None
    official = judge in OFFICIAL_MODELS
    reading = ratings.read_rating(text, official=official)
    if ratings.rating(text) != stored:
        return stored, (), None if reading.value == stored else reading.value
    if official:
        return stored, reading.doubts, None
    return (UNPARSED if reading.value is None else reading.value), reading.doubts, None


def _winner(row: dict[str, Any], judge: str, game: int, stored: str) -> tuple[str, tuple[str, ...], bool]:
    """Return the winner of a line's game 1 or 2, the doubts about it, and whether the text names another one."""
    text = row.get(f"g{game}_judgment")
    if any(f"g{game}_{key}" in row for key in READ_HERE) or not isinstance(text, str):
        return stored, doubts_of(row.get(f"g{game}_note")), False
    official = judge in OFFICIAL_MODELS
    reading = ratings.read_winner(text, official=official)
    named = winner_of(reading.value or NO_WINNER, game)
    if winner_of(ratings.winner(text), game) != stored:
        return stored, (), named not in (stored, NO_WINNER)
    if official:
        return stored, reading.doubts, False
    return named, reading.doubts, False


def winner_of(verdict: str, game: int) -> str:
    """Return the model that `A` or `B` stands for; in the second game the two have changed places."""
    names = {"A": "model_1", "B": "model_2"} if game == 1 else {"A": "model_2", "B": "model_1"}
    return names.get(verdict, verdict)


def _value(row: dict[str, Any], key: str, place: str) -> Any:
    if key not in row:
        raise DataError(f"{place} has no {key!r}.", hint=HINT)
    return row[key]


def _wrong(value: Any, key: str, place: str, expected: str) -> DataError:
    return DataError(f"{place}: {key!r} is {json.dumps(value)[:40]}, not {expected}.", hint=HINT)


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = _value(row, key, place)
    if not isinstance(value, str):
        raise _wrong(value, key, place, "a text")
    return value


def _number(row: dict[str, Any], key: str, place: str) -> float:
    value = _value(row, key, place)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(value, key, place, "a number")
    return float(value)


def _integer(row: dict[str, Any], key: str, place: str) -> int:
    value = _value(row, key, place)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, key, place, "an integer")
    return value


def _turn(row: dict[str, Any], place: str) -> int:
    turn = _integer(row, "turn", place)
    if turn not in (1, 2):
        raise _wrong(turn, "turn", place, "1 or 2")
    return turn


def _judge(row: dict[str, Any], place: str) -> tuple[str, str]:
    """Return the judge's and its prompt's name; FastChat writes both in a list."""
    value = _value(row, "judge", place)
    if isinstance(value, str):
        return value, ""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return value[0], value[1] if len(value) > 1 else ""
    raise _wrong(value, "judge", place, "a name or [name, prompt]")
