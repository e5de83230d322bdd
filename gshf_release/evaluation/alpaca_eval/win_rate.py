"""The win rate of AlpacaEval 2: how often the judge prefers the model's answer, in percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.annotations import Annotation

DRAW = 0.5


@dataclass(frozen=True, slots=True)
class WinRate:
    """Counts and rates of one model's judgments; rates and the error in percent."""

    win_rate: float
    """Mean preference: a judge that is 80% sure gives 0.8 of a win."""
    standard_error: float | None
    """sd(ddof=1) / sqrt(n); None below two judgments."""
    discrete_win_rate: float
    """Every preference counted as a win, a loss or half of each."""
    n_total: int
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_null: int
    """Rows without a judgment; they count nowhere else."""


def win_rate(rows: Sequence[Annotation]) -> WinRate:
    """Return the win rate as alpaca_eval's `get_winrate` defines it (metrics/helpers.py).

    Raises:
        DataError: No row has a judgment.
    """
    wins = [row.win for row in rows if row.win is not None]
    if not wins:
        place = f" ({rows[0].place})" if rows else ""
        raise DataError(f"None of {len(rows)} rows has a preference{place}.", hint="Judge the answers again.")
    count = len(wins)
    mean = math.fsum(wins) / count
    error = None
    if count > 1:
        error = 100 * math.sqrt(math.fsum((value - mean) ** 2 for value in wins) / (count - 1) / count)
    won = sum(value > DRAW for value in wins)
    lost = sum(value < DRAW for value in wins)
    draws = count - won - lost
    discrete = 100 * (won + draws / 2) / count
    return WinRate(100 * mean, error, discrete, count, won, lost, draws, len(rows) - count)
