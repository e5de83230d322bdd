"""The rating in a judge's text, read as FastChat reads it (fastchat/llm_judge/common.py, `run_judge_single`)."""

from __future__ import annotations

import re

UNPARSED = -1.0
"""Stands for a judgment without a rating."""
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
FALLBACK = re.compile(r"\[(\d+\.?\d*)\]")


def rating(judgment: str) -> float:
    """Return the first `[[number]]`, else the first `[number]`, else -1.

    Nothing checks the range: `[[11]]` gives 11, as in the published numbers.
    """
    found = RATING.search(judgment) or FALLBACK.search(judgment)
    return float(found.group(1)) if found else UNPARSED
