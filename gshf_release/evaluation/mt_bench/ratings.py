"""The verdict in a judge's text, read as FastChat reads it (fastchat/llm_judge/common.py)."""

from __future__ import annotations

import re

UNPARSED = -1.0
"""Stands for a judgment without a rating."""
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
FALLBACK = re.compile(r"\[(\d+\.?\d*)\]")
WINNERS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
"""Looked for in this order, anywhere in the text."""


def rating(text: str) -> float:
    """Return the first `[[number]]`, else the first `[number]`, else -1.

    Nothing checks the range: `[[11]]` gives 11, as in the published numbers.
    """
    found = RATING.search(text) or FALLBACK.search(text)
    return float(found.group(1)) if found else UNPARSED


def winner(text: str) -> str:
    """Return `A`, `B` or `tie`, whichever's sign the text holds (A's before B's before C's), else `error`."""
    return next((name for sign, name in WINNERS.items() if sign in text), "error")
