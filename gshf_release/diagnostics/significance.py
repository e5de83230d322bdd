"""Decide which gains over the base stand: Student's t, and one error rate for everything that a run could be praised for.

With two scorers, two decodings, three iterations and two sets of prompts there are 24 gains to look at, and one of them exceeds
two standard errors by chance in 43 % of runs that gained nothing. So the gains of a run are one family, tested together at
`LEVEL`. Half of it goes to one gain that is fixed before any run (`PRIMARY`, of the last iteration); the others share the other
half by Holm's procedure (Scand. J. Statist. 6, 1979), and all of it if the primary gain stands: the fallback procedure of Wiens
(Pharmaceutical Statistics 2, 2003). It holds whatever the gains' dependence on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gshf_release.data import statistics
from gshf_release.data.results import Cell
from gshf_release.run.stage import is_iteration, iteration_row

LEVEL = 0.025
"""Probability that a run without any true gain is said to have one, at most; one-sided, so two-sided 5 %."""
JUDGES = {"reward": "training reward", "second-scorer": "second scorer"}
DECODINGS = {"greedy": "greedily", "T=0.7": "at T=0.7"}
PRIMARY_TABLE, PRIMARY_JUDGE, PRIMARY_DECODING = "test", "reward", "greedy"
"""The primary endpoint, of the last iteration: the reward is what was optimised, and greedy answers cannot be sharpened."""
TABLES = (PRIMARY_TABLE, "eval")
"""Sets of prompts whose gains are tested; validation prompts choose the iteration, so they prove nothing about it."""


@dataclass(frozen=True, slots=True)
class Family:
    """The gains of a run that are tested together."""

    tested: Sequence[Cell]
    primary: Cell | None
    standing: frozenset[tuple[str, ...]]
    """Keys of the gains that stand."""

    def stands(self, gain: Cell | None) -> bool:
        """Return whether a gain over the base is told apart from noise."""
        return gain is not None and gain.key in self.standing


def iteration_number(row: str) -> int:
    """Return t of `iteration-t`; 0 for a row of another name, which results from elsewhere may have."""
    number = row.removeprefix("iteration-")
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def gains(cells: Sequence[Cell]) -> list[Cell]:
    """Return every gain over the base that a verdict could name: of all iterations, sets of prompts, scorers and decodings."""
    return [
        entry
        for entry in cells
        if entry.metric == "gain over base"
        and is_iteration(entry.row)
        and entry.table in TABLES
        and entry.judge in JUDGES
        and entry.decoding in DECODINGS
    ]


def family(cells: Sequence[Cell]) -> Family:
    """Return which gains of a run stand.

    Args:
        cells: All results of the run.
    """
    tested = gains(cells)
    last = max((iteration_number(gain.row) for gain in tested), default=0)
    place = (PRIMARY_TABLE, iteration_row(last), PRIMARY_JUDGE, PRIMARY_DECODING)
    primary = next((gain for gain in tested if (gain.table, gain.row, gain.judge, gain.decoding) == place), None)
    others = [gain for gain in tested if gain is not primary]
    share = LEVEL if primary is None else LEVEL / 2
    standing = set()
    if primary is not None and p_value(primary) <= share:
        standing.add(primary.key)
        share = LEVEL
    accepted = statistics.holm([p_value(gain) for gain in others], share)
    standing |= {gain.key for gain, accept in zip(others, accepted, strict=True) if accept}
    return Family(tested, primary, frozenset(standing))


def p_value(gain: Cell) -> float:
    """Return the one-sided p of a mean paired difference by Student's t; 1 where it has no standard error or no n.

    It is never below 2^-n, the least that the signs of n differences can prove: a few equal differences have no spread.
    """
    if gain.value is None or gain.standard_error is None or gain.n is None or gain.n < 2:
        return 1.0
    return max(statistics.student_p(gain.value, gain.standard_error, gain.n), 0.5**gain.n)


def significant(entry: Cell | None) -> bool:
    """Return whether one value by itself is above zero at `LEVEL`: for what explains a gain, not for the gain."""
    return entry is not None and p_value(entry) <= LEVEL
