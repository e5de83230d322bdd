"""The text that a loss is measured on, and the one that GPTQ is calibrated on: token ids, described and hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import seed_from, sha256_file, sha256_json
from gshf_release.data.records import Sample
from gshf_release.errors import DataError, ReleaseError

LONGEST = 512
"""Tokens of a sequence; longer ones are cut, so that the logits of one fit into memory."""
MEASURED_TOKENS = 4096
CALIBRATION_SEQUENCES = 128


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Sequences of token ids and where they come from."""

    sequences: list[list[int]]
    description: str
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Return what is recorded of it: everything but the ids."""
        tokens = sum(map(len, self.sequences))
        return {key: value for key, value in asdict(self).items() if key != "sequences"} | {"tokens": tokens}


def of_samples(samples: Sequence[Sample], *, role: str, tokens: int = MEASURED_TOKENS) -> CalibrationText:
    """Return the conversations of a role with their greedy answers, as many as `tokens` tokens hold.

    Raises:
        DataError: There are none.
    """
    ordered = sorted((row for row in samples if row.sample_index == 0), key=lambda row: row.prompt_id)
    return _text([[*row.prompt_ids, *row.completion_ids] for row in ordered], f"prompts and answers of {role}", tokens)


def calibration(samples: Sequence[Sample], *, role: str, seed: int) -> CalibrationText:
    """Return the conversations that GPTQ is calibrated on, in an order that the seed alone decides.

    Raises:
        DataError: There are none.
    """

    def key(row: Sample) -> int:
        return seed_from(seed, "calibration", row.prompt_id)

    ordered = sorted((row for row in samples if row.sample_index == 0), key=key)[:CALIBRATION_SEQUENCES]
    sequences = [[*row.prompt_ids, *row.completion_ids] for row in ordered]
    return _text(sequences, f"prompts and answers of {role}", len(sequences) * LONGEST)


def of_file(path: Path, tokenizer: Any, tokens: int = MEASURED_TOKENS) -> CalibrationText:
    """Return a UTF-8 text file, cut into sequences that begin as the tokenizer begins a text.

    Raises:
        DataError: It is no text, or too short.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable UTF-8 text: {error}.") from error
    begin = list(tokenizer("")["input_ids"])
    begin = begin[:1] if begin and begin[0] == tokenizer.bos_token_id else []
    ids = [int(token) for token in tokenizer(content, add_special_tokens=False)["input_ids"]][:tokens]
    step = LONGEST - len(begin)
    text = _text([[*begin, *ids[start : start + step]] for start in range(0, len(ids), step)], path.name, tokens)
    return CalibrationText(
        text.sequences, f"the first {sum(map(len, text.sequences))} tokens of {path.name}", sha256_file(path)
    )


def check_apart(measured: CalibrationText, calibrated: CalibrationText) -> None:
    """Refuse a loss measured on what the weights were fitted to.

    Raises:
        ReleaseError: A sequence is in both texts.
    """
    if {tuple(row) for row in measured.sequences} & {tuple(row) for row in calibrated.sequences}:
        raise ReleaseError(
            "The loss is to be measured on text that GPTQ is calibrated on: it would look too small.",
            hint="Give another file with --calibration.",
        )


def _text(sequences: Sequence[Sequence[int]], description: str, tokens: int) -> CalibrationText:
    kept: list[list[int]] = []
    for sequence in sequences:
        room = min(LONGEST, tokens - sum(map(len, kept)))
        if min(room, len(sequence)) >= 2:
            kept.append(list(sequence[:room]))
    if not kept:
        raise DataError(f"There is no text to measure on: {description} hold no sequence of two tokens.")
    return CalibrationText(kept, f"{sum(map(len, kept))} tokens of {description}", sha256_json(kept))
