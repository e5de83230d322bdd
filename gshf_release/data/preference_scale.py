"""On which scale preferences are coded: a file on another one than AlpacaEval's would give a number, and a wrong one.

AlpacaEval's go from 1 (the first answer, the baseline's, is better) to 2 (the second, the model's, is); a draw is 1.5, or 0 as
old versions wrote it. Read so, a file with 0 for the baseline and 1 for the model counts a loss as a draw and a win as a loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

EXPECTED = "from 1 (the baseline's answer is better) to 2 (the model's is), with 1.5 for a draw"
HINT = "Write 1 + the model's share of the win: 1 for a loss, 1.5 for a draw (0 in old files), 2 for a win."


def other_scale(values: Sequence[Any]) -> str:
    """Return how preferences are coded if all of them together are on no scale of AlpacaEval's, else nothing.

    A value above 1 and up to 2 shows AlpacaEval's own scale, where 0 is a draw. Without any, 0 may be a loss as well as a draw.

    Args:
        values: As they stand in the file; None and NaN are judgments that failed.
    """
    given = [value for value in values if value is not None and not (isinstance(value, float) and math.isnan(value))]
    if not given:
        return ""
    if all(isinstance(value, bool) for value in given):
        return "true and false"
    if all(isinstance(value, str) for value in given):
        return f"texts, such as {given[0][:20]!r}"
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given):
        return ""
    low, high = min(given), max(given)
    if any(1 < value <= 2 for value in given) or low == high == 1:
        return ""
    if all(value in (0, 1) for value in given):
        return "0 alone" if high == 0 else "0 and 1"
    return f"from {_shown(low)} to {_shown(high)}"


def _shown(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e15 else "more than a million times a million"
