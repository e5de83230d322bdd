"""`reward score`: the scores of conversations in a file, beside the rows they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gshf_release.data import statistics
from gshf_release.data.dataset_files import OnBadRow, Rows
from gshf_release.data.dataset_rows import CONVERSATION_EXAMPLE, parse_conversation, read_rows
from gshf_release.data.records import Message
from gshf_release.errors import DataError
from gshf_release.rewards import RewardModel
from gshf_release.rewards.ensemble import Scores, score_all, score_readable

REWARD, DEVIATION = "reward", "reward_deviation"
FORMATS = (".jsonl", ".parquet")
TOO_LONG = "the conversation is too long for the reward model"


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """A row as it came, and its conversation."""

    row: dict[str, Any]
    conversation: list[Message]


def read_answers(path: Path, *, on_bad_row: OnBadRow = "fail", split: str = "train") -> Rows[AnsweredRow]:
    """Return the conversations of a file or data set's folder, each with its row.

    Raises:
        DataError: A row is bad, or the file cannot be read.
    """
    return read_rows(
        path,
        lambda row, use: AnsweredRow(row, parse_conversation(row, use)),
        example=CONVERSATION_EXAMPLE,
        on_bad_row=on_bad_row,
        split=split,
    )


def check_output(path: Path, source: Path) -> None:
    """Refuse an output that cannot be written, before anything is computed.

    Raises:
        DataError: Its name says no known format, or it is the input.
    """
    if path.resolve() == source.resolve():
        raise DataError(f"{path} would be overwritten by its own scores.", hint="Choose another file with --out.")
    if path.suffix not in FORMATS:
        raise DataError(f"{path} is neither .jsonl nor .parquet.", hint="Choose the format by the name in --out.")


def score_rows(
    model: RewardModel, rows: Rows[AnsweredRow], *, on_bad_row: OnBadRow = "fail"
) -> tuple[Rows[AnsweredRow], Scores]:
    """Return the rows that the model can read, and their scores, with the deviation where the model is an ensemble.

    A conversation that is too long for the model is a bad row: it is skipped and counted, or stops everything.

    Raises:
        DataError: A conversation is too long, and `on_bad_row` is `fail`; or none can be read.
        EngineError: The same, where it is only known that a member of an ensemble cannot read one.
    """
    reads = getattr(model, "reads", None)
    if on_bad_row == "fail":
        for entry, place in zip(rows.values, rows.places, strict=True):
            if reads is not None and not reads(entry.conversation):
                raise DataError(f"{place}: {TOO_LONG}.", hint="--on-bad-row skip leaves such rows out and counts them.")
        return rows, score_all(model, [entry.conversation for entry in rows.values])
    rewards, deviations, read = score_readable(model, [entry.conversation for entry in rows.values])
    kept = [number for number in range(len(rewards)) if read is None or read[number]]
    if not kept:
        raise DataError(f"No row is left to score: {len(rows.values)} times {TOO_LONG}.")
    long = [f"{place}: {TOO_LONG}" for number, place in enumerate(rows.places) if number not in set(kept)]
    left = Rows([rows.values[at] for at in kept], [rows.places[at] for at in kept], [*rows.bad, *long])
    return left, Scores(rewards[kept], None if deviations is None else deviations[kept])


def write_scores(answers: Sequence[AnsweredRow], scores: Scores, path: Path) -> None:
    """Write the rows with a column `reward`, and `reward_deviation` for an ensemble; the file appears whole or not at all.

    Raises:
        DataError: The rows do not fit into one Parquet schema.
    """
    rows = [
        entry.row
        | {REWARD: float(scores.rewards[number])}
        | ({} if scores.deviations is None else {DEVIATION: float(scores.deviations[number])})
        for number, entry in enumerate(answers)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    if path.suffix == ".jsonl":
        temporary.write_text(
            "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows), encoding="utf-8"
        )
    else:
        try:
            pq.write_table(pa.Table.from_pylist(rows), temporary, compression="zstd")
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(f"The rows do not fit into one Parquet schema: {error}.", hint="Write .jsonl.") from error
    temporary.replace(path)


def summary(answers: Sequence[AnsweredRow], scores: Scores) -> dict[str, Any]:
    """Return mean with standard error, spread and quantiles of the scores, and Pearson's r with the answers' characters."""
    rewards = scores.rewards.astype(np.float64)
    found = statistics.mean(rewards.tolist())
    lengths = np.asarray([len(entry.conversation[-1]["content"]) for entry in answers], dtype=np.float64)
    quantiles = {f"p{share}": float(np.percentile(rewards, share)) for share in (5, 25, 50, 75, 95)}
    document: dict[str, Any] = {
        "n": found.n,
        "mean": found.value,
        "standard_error": found.standard_error,
        "minimum": float(rewards.min()),
        "maximum": float(rewards.max()),
        **quantiles,
        "correlation_with_characters": _pearson(rewards, lengths),
    }
    if scores.deviations is not None:
        document["mean_deviation"] = float(scores.deviations.astype(np.float64).mean())
    return document


def _pearson(values: Any, others: Any) -> float | None:
    """Return Pearson's r, or None where one side does not vary."""
    if len(values) < 2 or values.std() == 0 or others.std() == 0:
        return None
    return float(np.corrcoef(values, others)[0, 1])
