"""The judgments of one AlpacaEval 2 run: `annotations.json`, as the library of any version writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.data import user_files
from gshf_release.data.preference_scale import EXPECTED, other_scale
from gshf_release.data.preference_scale import HINT as SCALE_HINT
from gshf_release.errors import DataError
from gshf_release.evaluation.verdicts import letters
from gshf_release.evaluation.verdicts.reading import FEW_LETTERS_WEIGHED, answered_by, doubts_of

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
"""The official annotator of AlpacaEval 2."""
BASELINE = "gpt4_1106_preview"
"""The official baseline of AlpacaEval 2."""
LETTERS = ("m", "M")
"""What the annotators that weigh log-probabilities ask for."""
LETTER_SHARE = 0.5
"""What both must hold of the first token's probability to be weighed without a word."""
READ_HERE = ("letter_share", "note", "failed")
"""Keys of a row whose preference `judging.alpaca_eval` read."""
HINT = "Expected is AlpacaEval's annotations.json: a list of rows with instruction, output_1, output_2, preference."


@dataclass(frozen=True, slots=True)
class Annotation:
    """One comparison of the model's answer with the baseline's."""

    instruction: str
    output_1: str
    """The baseline's answer."""
    output_2: str
    """The model's answer."""
    generator_1: str
    """The baseline."""
    generator_2: str
    """The model."""
    annotator: str
    """The judge."""
    preference: float | None
    """From 1 (the baseline's answer is surely better) to 2 (the model's is); None if the judge gave no judgment."""
    price: float | None = None
    """US dollars that the judgment cost, if recorded."""
    coded_zero: bool = False
    """Whether the file has 0, which old versions wrote for a draw."""
    place: str = ""
    """File and row (from 1), for messages."""
    doubts: tuple[str, ...] = ()
    """What makes one doubt the preference, of `verdicts.reading.DOUBTS`."""
    answered_by: str = ""
    """The model that the judge's server named; only rows that were judged here say it."""

    @property
    def win(self) -> float | None:
        """The preference from 0 (baseline) to 1 (model)."""
        return None if self.preference is None else self.preference - 1


def read(path: Path) -> list[Annotation]:
    """Return the rows of a file, plain or packed with gzip, in its order.

    Both namings of columns are read: `price_per_example` of older versions and `preference_price_per_example` of newer ones.

    Raises:
        DataError: The file cannot be read, a row is not a judgment (names the row), or the preferences are on another scale.
    """
    found = list(user_files.rows(path))
    if not found:
        raise DataError(f"{path} holds no row.", hint=HINT)
    scale = other_scale([row.get("preference") for _, row in found if isinstance(row, dict)])
    if scale:
        raise DataError(f"{path}: its preferences are {scale}; AlpacaEval's go {EXPECTED}.", hint=SCALE_HINT)
    return [parse(row, place) for place, row in found]


def parse(row: Any, place: str) -> Annotation:
    """Return one row of `annotations.json`.

    Raises:
        DataError: A column is missing or of the wrong type, or the preference is none.
    """
    if isinstance(row, ValueError):
        raise DataError(f"{place} is not JSON: {row}.", hint=HINT) from row
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, found {type(row).__name__}.", hint=HINT)
    texts = {key: _text(row, key, place) for key in ("instruction", "output_1", "output_2")}
    names = {key: _text(row, key, place) for key in ("generator_1", "generator_2")}
    return Annotation(
        **texts,
        **names,
        annotator=str(row.get("annotator") or ""),
        preference=_preference(row, place),
        price=_price(row),
        coded_zero=row.get("preference") == 0,
        place=place,
        doubts=_doubts(row),
        answered_by=answered_by(row),
    )


def groups(rows: Sequence[Annotation]) -> list[list[Annotation]]:
    """Return the rows of each model, judge and baseline, in the order of their first row."""
    found: dict[tuple[str, str, str], list[Annotation]] = {}
    for row in rows:
        found.setdefault((row.generator_2, row.annotator, row.generator_1), []).append(row)
    return list(found.values())


def _text(row: dict[str, Any], key: str, place: str) -> str:
    if key not in row:
        raise DataError(f"{place} has no {key!r}.", hint=HINT)
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {json.dumps(value)[:40]}, not a text.", hint=HINT)
    return value


def _preference(row: dict[str, Any], place: str) -> float | None:
    """Return the preference; a draw was 0 in older versions and is 1.5 now."""
    if "preference" not in row:
        raise DataError(f"{place} has no 'preference'.", hint=HINT)
    value = row["preference"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not _is_number(value) or not (value == 0 or 1 <= value <= 2):
        raise DataError(
            f"{place}: the preference {json.dumps(value)[:40]} is neither null, 0 (draw) nor from 1 (baseline) to 2 (model).",
            hint="Remove the row, or judge it again.",
        )
    return 1.5 if value == 0 else float(value)


def _doubts(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what makes one doubt a row's preference: its note; else how little the letters held that the library weighed."""
    if any(key in row for key in READ_HERE):
        return doubts_of(row.get("note"))
    said = row.get("preference_raw_completion", row.get("raw_completion"))
    logprobs = said.get("logprobs") if isinstance(said, dict) else None
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    share = sum(letters.exactly(tokens, LETTERS).values())
    return (FEW_LETTERS_WEIGHED,) if row.get("preference") is not None and 0 < share < LETTER_SHARE else ()


def _price(row: dict[str, Any]) -> float | None:
    value: Any = row.get("price_per_example", row.get("preference_price_per_example"))
    return float(value) if _is_number(value) and math.isfinite(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
