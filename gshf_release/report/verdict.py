"""What a run did, in words: learned, sharpened, got longer, or nothing that can be told from noise."""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.results import Cell, find, select

SIGNIFICANT = 2.0
LONGER = 1.15


def verdict(cells: Sequence[Cell], table: str = "test") -> str:
    """Return one sentence on the last iteration against the base at equal decoding.

    A gain counts if it exceeds two paired standard errors under the training reward and under the scorer that training never
    saw. Greedy decoding cannot be sharpened further, so a gain there is more than sharpening; a gain at temperature 0.7 alone
    that the base reaches by a lower temperature is not.
    """
    chosen = select(cells, table=table)
    rows = [entry.row for entry in chosen if entry.row.startswith("iteration-")]
    if not rows:
        return "No iteration was evaluated."
    last = rows[-1]
    greedy = [_gain(chosen, last, judge, "greedy") for judge in ("reward", "second-scorer")]
    warm = [_gain(chosen, last, judge, "T=0.7") for judge in ("reward", "second-scorer")]
    length = _length_ratio(chosen, last)
    longer = f" Its answers are {length:.2f} times as long as the base's." if length > LONGER else ""
    if all(_significant(entry) for entry in (*greedy, *warm)):
        return f"{last} learned: better than the base under both scorers, greedily and at T=0.7.{longer}"
    if all(_significant(entry) for entry in warm):
        control = [entry for entry in chosen if entry.row.startswith("base at ") and entry.judge == "second-scorer"]
        if control and warm[1] and (control[0].value or 0) >= (warm[1].value or 0):
            return f"{last} sharpened: the base gains as much by a lower temperature alone.{longer}"
        return (
            f"{last} is better than the base at T=0.7 under both scorers; at greedy decoding the gain is not beyond two "
            f"standard errors, so part of it may be sharpening.{longer}"
        )
    if all(_significant(entry) for entry in (greedy[0], warm[0])):
        return f"{last} gained under its training reward only; the second scorer does not confirm it.{longer}"
    return f"{last} shows no gain beyond two standard errors under both scorers.{longer}"


def _gain(cells: Sequence[Cell], row: str, judge: str, decoding: str) -> Cell | None:
    return find(cells, row=row, metric="gain over base", judge=judge, decoding=decoding)


def _significant(entry: Cell | None) -> bool:
    if entry is None or entry.value is None or entry.standard_error is None:
        return False
    return entry.value > SIGNIFICANT * entry.standard_error


def _length_ratio(cells: Sequence[Cell], row: str) -> float:
    own = find(cells, row=row, metric="length", decoding="T=0.7")
    base = find(cells, row="base", metric="length", decoding="T=0.7")
    if own is None or base is None or not own.value or not base.value:
        return 1.0
    return own.value / base.value
