"""An outside check of any reward model: how often it agrees with a judge's comparisons that it was not trained on.

The judgments are in AlpacaEval's annotation format: `instruction`, `output_1`, `output_2` and `preference`, which is 1 where
the first is better, 2 where the second is, and in between for a judge that is less sure. A judgment of exactly 1.5 (or 0, as
older files write it) takes no side and is left out and counted; a model that scores both alike agrees half.

Agreement alone misleads where one side wins most of the time, as GPT-4's own answers do in AlpacaEval: a constant answer
agrees as often as that side wins. So the share of the more frequent side stands beside it, with the balanced agreement, for
which every constant answer has one half, and with what the longer answer alone would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gshf_release.data import statistics
from gshf_release.data.dataset_files import OnBadRow, Rows, read_rows
from gshf_release.data.hashing import seed_from
from gshf_release.data.preference_scale import EXPECTED, HINT, other_scale
from gshf_release.data.records import Message
from gshf_release.data.results import Cell, cell
from gshf_release.errors import DataError
from gshf_release.rewards import Duel, PairwiseModel, RewardModel
from gshf_release.rewards.quality import hits, length_matched

EXAMPLE = '{"instruction": "Why?", "output_1": "So.", "output_2": "No.", "preference": 1.02}'


class JudgedComparison(NamedTuple):
    """A judge's comparison of two answers."""

    instruction: str
    first: str
    second: str
    preference: float
    """Between 1 (the first is better) and 2 (the second); 1.5 is a tie."""
    source: str
    """Who wrote the second answer."""

    @property
    def prompt(self) -> list[Message]:
        """The instruction as a conversation."""
        return [Message(role="user", content=self.instruction)]

    @property
    def conversations(self) -> list[list[Message]]:
        """The conversation with either answer."""
        return [[*self.prompt, Message(role="assistant", content=text)] for text in (self.first, self.second)]


class UsableJudgments(NamedTuple):
    """The judgments that a model can be compared with, and how many cannot, by reason."""

    judged: list[JudgedComparison]
    left_out: dict[str, int]


def read_judgments(paths: Sequence[Path], *, on_bad_row: OnBadRow = "fail") -> Rows[JudgedComparison]:
    """Return the judgments of AlpacaEval annotation files (JSON or JSONL, also with .gz).

    Raises:
        DataError: A row is bad, or a file cannot be read.
    """
    found: Rows[JudgedComparison] = Rows()
    for path in paths:
        rows = _read_file(path, on_bad_row)
        found.values.extend(rows.values)
        found.places.extend(rows.places)
        found.bad.extend(rows.bad)
    return found


def _read_file(path: Path, on_bad_row: OnBadRow) -> Rows[JudgedComparison]:
    """Return the judgments of one file, whose preferences must be on AlpacaEval's scale."""
    stored: list[Any] = []

    def parse(row: dict[str, Any]) -> JudgedComparison:
        stored.append(row.get("preference"))
        return parse_judgment(row)

    rows = read_rows(path, parse, example=EXAMPLE, on_bad_row=on_bad_row)
    scale = other_scale(stored)
    if scale:
        raise DataError(f"{path}: its preferences are {scale}; they must go {EXPECTED}.", hint=HINT)
    return rows


def parse_judgment(row: dict[str, Any]) -> JudgedComparison:
    """Return the judgment of a row.

    Raises:
        ValueError: A text is missing, or the preference is no number between 1 and 2.
    """
    instruction, first, second = (row.get(name) for name in ("instruction", "output_1", "output_2"))
    if not (
        isinstance(instruction, str) and isinstance(first, str) and isinstance(second, str) and instruction.strip()
    ):
        raise ValueError('expected texts under "instruction", "output_1" and "output_2"')
    try:
        if isinstance(row["preference"], bool):
            raise TypeError("a truth value is no preference")
        preference = float(row["preference"])
    except (KeyError, TypeError, ValueError):
        raise ValueError('expected a number under "preference"') from None
    preference = 1.5 if preference == 0 else preference
    if not 1 <= preference <= 2:
        raise ValueError(f"the preference {preference:g} is not between 1 and 2")
    return JudgedComparison(instruction, first, second, preference, str(row.get("generator_2", "")))


def sample(judged: Sequence[JudgedComparison], count: int | None, seed: int) -> list[JudgedComparison]:
    """Return the judgments of `count` instructions, drawn by the seed and the texts alone; all of them for None."""
    if count is None:
        return list(judged)
    names = sorted({entry.instruction for entry in judged}, key=lambda name: (seed_from(seed, "agreement", name), name))
    chosen = set(names[:count])
    return [entry for entry in judged if entry.instruction in chosen]


def usable(model: RewardModel | PairwiseModel, judged: Sequence[JudgedComparison]) -> UsableJudgments:
    """Return the judgments that take a side between two different answers which the model can read.

    Raises:
        DataError: None is left.
    """
    reasons = {"judge's tie": 0, "identical answers": 0, "too long": 0}
    kept = []
    for entry in judged:
        if entry.preference == 1.5:
            reasons["judge's tie"] += 1
        elif entry.first.strip() == entry.second.strip():
            reasons["identical answers"] += 1
        elif not _reads(model, entry):
            reasons["too long"] += 1
        else:
            kept.append(entry)
    if not kept:
        raise DataError(f"No judgment is left to compare with: {reasons}.", hint="Give other judgments.")
    return UsableJudgments(kept, reasons)


def margins(model: RewardModel | PairwiseModel, judged: Sequence[JudgedComparison]) -> list[float]:
    """Return, for each judgment, by how much the model prefers the second answer; negative for the first."""
    if isinstance(model, PairwiseModel):
        wins = model.prefer_all([Duel(entry.prompt, entry.second, entry.first) for entry in judged])
        return [float(value) - 0.5 for value in wins]
    scores = model.score([conversation for entry in judged for conversation in entry.conversations])
    return [float(second) - float(first) for first, second in zip(scores[::2], scores[1::2], strict=True)]


def cells(judged: Sequence[JudgedComparison], preferred: Sequence[float], *, row: str, judge: str) -> list[Cell]:
    """Return agreement and its baselines, in percent, with standard errors over instructions.

    Args:
        judged: Judgments that take a side.
        preferred: The model's `margins`.
        row: What the model is called.
        judge: What the judge is called.
    """
    place = {"table": "agreement", "row": row, "judge": judge, "unit": "%"}
    sides = [1.0 if entry.preference > 1.5 else -1.0 for entry in judged]
    owners = [entry.instruction for entry in judged]
    agreed = hits([margin * side for margin, side in zip(preferred, sides, strict=True)])
    longer = [float(len(entry.second) - len(entry.first)) for entry in judged]
    by_length = hits([value * side for value, side in zip(longer, sides, strict=True)])

    def share(values: Sequence[float], chosen: Sequence[int] | None = None) -> statistics.Estimate:
        places = range(len(values)) if chosen is None else chosen
        return statistics.percent(
            statistics.clustered_mean([values[place] for place in places], [owners[place] for place in places])
        )

    second = [float(side > 0) for side in sides]
    majority = second if sum(second) * 2 > len(second) else [1 - value for value in second]
    difference = [value - other for value, other in zip(agreed, by_length, strict=True)]
    found = [
        cell(share(agreed), metric="agreement", note="a model that scores both answers alike agrees half", **place),
        cell(
            _balanced(agreed, sides, owners), metric="balanced agreement", note="mean over both winning sides", **place
        ),
        cell(share(by_length), metric="length only: agreement", note="of preferring more characters", **place),
        cell(_balanced(by_length, sides, owners), metric="length only: balanced agreement", **place),
        cell(share(difference), metric="agreement above length only", note="paired difference", **place),
        cell(share(majority), metric="more frequent side", note="what a constant answer would agree", **place),
    ]
    matched = [number for number, entry in enumerate(judged) if length_matched(len(entry.first), len(entry.second))]
    if matched:
        note = "the shorter answer has at least 90 % of the longer one's characters"
        found.append(cell(share(agreed, matched), metric="agreement on length-matched pairs", note=note, **place))
    for source in sorted({entry.source for entry in judged} - {""}):
        inside = [number for number, entry in enumerate(judged) if entry.source == source]
        found.append(cell(share(agreed, inside), metric=f"agreement: {source}", **place))
    return found


def _balanced(values: Sequence[float], sides: Sequence[float], clusters: Sequence[str]) -> statistics.Estimate:
    """Return the mean, in percent, of the two sides' means; the plain mean if one side is empty.

    Its standard error adds up, per cluster, by how much each value moves the result: (value - mean of its side) / (2 n of it).
    """
    array, side = np.asarray(values), np.asarray(sides)
    present = [value for value in (-1.0, 1.0) if (side == value).any()]
    means = {value: float(array[side == value].mean()) for value in present}
    counts = {value: int((side == value).sum()) for value in present}
    sums: dict[str, float] = {}
    for value, which, cluster in zip(values, sides, clusters, strict=True):
        moved = (value - means[which]) / (len(present) * counts[which])
        sums[cluster] = sums.get(cluster, 0.0) + moved
    error = None
    if len(sums) > 1:
        error = math.sqrt(len(sums) / (len(sums) - 1) * sum(total**2 for total in sums.values()))
    return statistics.percent(statistics.Estimate(sum(means.values()) / len(present), error, len(values)))


def _reads(model: RewardModel | PairwiseModel, entry: JudgedComparison) -> bool:
    """Return whether a model that knows its limit can read both answers."""
    reads = getattr(model, "reads", None)
    if reads is None:
        return True
    if isinstance(model, PairwiseModel):
        return bool(reads(Duel(entry.prompt, entry.first, entry.second)))
    return all(reads(conversation) for conversation in entry.conversations)
