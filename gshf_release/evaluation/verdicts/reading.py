"""A verdict as it was read from a judge's reply: its value, or why there is none, and whatever makes one doubt it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gshf_release.evaluation.verdicts.thinking import Answer

Value = TypeVar("Value")

THOUGHT = "thinking set aside"
LAST_COUNTS = "several different verdicts in one text, the last counts"
FASTCHAT_COUNTS = "several different verdicts in one text, FastChat's rule decides"
CUT_AFTER = "text cut after the verdict"
BY_TEXT = "letter of the text, no log-probabilities"
FEW_LETTERS = "letter of the text, the letters hold too little probability"
FEW_LETTERS_WEIGHED = "weighed, though the letters hold little probability"
CONTRADICTION = "text and log-probabilities name different answers"
OTHER_MODEL = "made by another model than was asked for"
SEVERAL_MODELS = "made by several versions of the model that was asked for"
DOUBTS = (
    OTHER_MODEL,
    SEVERAL_MODELS,
    LAST_COUNTS,
    FASTCHAT_COUNTS,
    CUT_AFTER,
    BY_TEXT,
    FEW_LETTERS,
    FEW_LETTERS_WEIGHED,
    CONTRADICTION,
    THOUGHT,
)
"""All of them, in the order in which they are told; rows of judgments hold them under `note`, joined by `SEPARATOR`."""
SEPARATOR = "; "

CUT = frozenset({"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"})
"""Finish reasons of an answer that its limit ended, as servers write them."""
FILTERED = frozenset(
    {"content_filter", "safety", "prohibited_content", "recitation", "blocklist", "refusal", "sensitive"}
)
CUT_BEFORE = "cut by its limit of tokens before a verdict: raise the judge's parameters.max_tokens"
CUT_THINKING = "its limit of tokens ended within the thinking: raise the judge's parameters.max_tokens"
FILTERED_BEFORE = "stopped by the server's content filter before a verdict"
ONLY_THINKING = "thinking without an answer"
EMPTY = "empty answer"


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value]):
    """Records what was read."""

    value: Value | None
    failed: str = ""
    """Why there is no value."""
    doubts: tuple[str, ...] = ()
    """Of `DOUBTS`."""

    @property
    def note(self) -> str:
        """The doubts as a row of judgments holds them."""
        return SEPARATOR.join(self.doubts)


def is_cut(finish_reason: str) -> bool:
    """Return whether the limit of tokens or a filter ended a reply, so that it may lack its end."""
    return finish_reason.lower() in CUT | FILTERED


def without_verdict(answer: Answer, reasoning: str, finish_reason: str, nothing: str) -> str:
    """Return why a reply holds no verdict.

    Args:
        answer: Its text with the thinking set aside.
        reasoning: Thinking that the server gave apart from the text.
        finish_reason: What the server says ended it.
        nothing: The reason of a whole answer that does not say one.
    """
    if finish_reason.lower() in FILTERED:
        return FILTERED_BEFORE
    thought, said = bool(answer.thinking or reasoning.strip()), bool(answer.text.strip())
    if finish_reason.lower() in CUT:
        return CUT_THINKING if thought and not said else CUT_BEFORE
    if said:
        return nothing
    return ONLY_THINKING if thought else EMPTY


def doubts_of(note: object) -> tuple[str, ...]:
    """Return the doubts in a stored row's note; remarks of other tools are none."""
    return tuple(part for part in note.split(SEPARATOR) if part in DOUBTS) if isinstance(note, str) else ()


def answered_by(row: Mapping[str, object], prefix: str = "") -> str:
    """Return the model that a judge's server named in a stored row, or nothing."""
    name = row.get(f"{prefix}answered_by")
    return name if isinstance(name, str) else ""


def count(rows: Iterable[Sequence[str]]) -> dict[str, int]:
    """Return how many rows have each doubt, in the order of `DOUBTS`."""
    found = [set(row) for row in rows]
    counts = {doubt: sum(doubt in row for row in found) for doubt in DOUBTS}
    return {doubt: number for doubt, number in counts.items() if number}


def warnings(counts: Mapping[str, int], total: int) -> list[str]:
    """Return a sentence for each doubt that weakens the numbers; thinking that was set aside does not."""
    return told({doubt: number for doubt, number in counts.items() if doubt != THOUGHT}, total)


def announced(rows: Iterable[Sequence[str]], total: int, what: str) -> list[str]:
    """Return the lines that a user sees before the numbers of judgments that were just made.

    Args:
        rows: The doubts about each judgment that counts.
        total: How many judgments there are, the failed ones included.
        what: What was judged.
    """
    counts = count(rows)
    weak = warnings(counts, total)
    return [("Warning: " if line in weak else "") + f"{line} ({what})." for line in told(counts, total)]


def told(counts: Mapping[str, int], total: int) -> list[str]:
    """Return a sentence for each doubt, for example `3 of 160 judgments: thinking set aside`."""
    return [f"{number} of {total} judgments: {doubt}" for doubt, number in counts.items()]
