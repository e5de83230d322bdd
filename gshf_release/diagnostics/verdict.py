"""What a run did, in words: learned, sharpened, got longer, or nothing that can be told from noise."""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.results import Cell, find, select

SIGNIFICANT = 2.0
LONGER = 1.15
JUDGES = {"reward": "training reward", "second-scorer": "second scorer"}
DECODINGS = {"greedy": "greedily", "T=0.7": "at T=0.7"}


def verdict(cells: Sequence[Cell], table: str = "test", row: str | None = None) -> str:
    """Return in words what an iteration (the last by default) gained over the base at equal decoding.

    A gain counts if it exceeds two paired standard errors. Greedy decoding cannot be sharpened further, so a gain there is more
    than sharpening; a gain at temperature 0.7 is more only if it also beats the untrained base at the control temperature.
    """
    chosen = select(cells, table=table)
    rows = [entry.row for entry in chosen if entry.row.startswith("iteration-")]
    if not rows:
        return "No iteration was evaluated."
    row = row or rows[-1]
    gains = {(judge, decoding): _gain(chosen, row, judge, decoding) for judge in JUDGES for decoding in DECODINGS}
    counted = [place for place, entry in gains.items() if _significant(entry)]
    if not counted:
        return f"{row} shows no gain beyond two standard errors.{_length(chosen, row)}"
    where = ", ".join(f"{JUDGES[judge]} {DECODINGS[decoding]}" for judge, decoding in counted)
    return f"{row} {_kind(chosen, row, counted)}. Gains beyond two standard errors: {where}.{_length(chosen, row)}"


def _kind(cells: Sequence[Cell], row: str, counted: list[tuple[str, str]]) -> str:
    if len(counted) == len(JUDGES) * len(DECODINGS):
        return "learned: it is better than the base under both scorers, greedily and at T=0.7"
    if {judge for judge, _ in counted} == {"reward"}:
        return "gained under its training reward only; the second scorer does not confirm it"
    if {judge for judge, _ in counted} == {"second-scorer"}:
        return "gained under the second scorer only, not under its training reward"
    if all((judge, "T=0.7") in counted for judge in JUDGES):
        over = [find(cells, row=row, metric="gain over control", judge=judge) for judge in JUDGES]
        if all(_significant(entry) for entry in over):
            return "learned: at T=0.7 it is better than the base, and than the base sharpened by a lower temperature"
        return (
            "sharpened: at T=0.7 it is better than the base, but not beyond two standard errors better than the untrained base "
            "at a lower temperature"
        )
    return "gained in part"


def _gain(cells: Sequence[Cell], row: str, judge: str, decoding: str) -> Cell | None:
    return find(cells, row=row, metric="gain over base", judge=judge, decoding=decoding)


def _significant(entry: Cell | None) -> bool:
    if entry is None or entry.value is None or entry.standard_error is None:
        return False
    return entry.value > SIGNIFICANT * entry.standard_error


def _length(cells: Sequence[Cell], row: str) -> str:
    """Return a sentence if the answers became markedly longer or shorter."""
    own = find(cells, row=row, metric="length", decoding="T=0.7")
    base = find(cells, row="base", metric="length", decoding="T=0.7")
    if own is None or base is None or not own.value or not base.value:
        return ""
    ratio = own.value / base.value
    if 1 / LONGER <= ratio <= LONGER:
        return ""
    return f" Its answers are {ratio:.2f} times as long as the base's."
