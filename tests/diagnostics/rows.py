"""Hand-made answers and gains."""

from __future__ import annotations

from gshf_release.data.records import FinishReason, Sample
from gshf_release.data.results import Cell

Gains = dict[tuple[str, str], tuple[float, float]]
REWARD, SECOND = "reward", "second-scorer"
GREEDY, WARM = "greedy", "T=0.7"


def answer(
    prompt: str,
    text: str = "",
    *,
    tokens: int = 3,
    index: int = 0,
    decoding: str = "greedy",
    reason: FinishReason = "stop",
) -> Sample:
    """Return an answer of `tokens` tokens."""
    temperature = 0.0 if decoding == "greedy" else float(decoding.removeprefix("T="))
    return Sample(prompt, index, decoding, temperature, [1], list(range(tokens)), text, reason, "f" * 64)


def gains(values: Gains, *, length: float = 10.0, over_control: float | None = None) -> list[Cell]:
    """Return the cells of one iteration: `{(judge, decoding): (gain, standard error)}`."""
    place = {"table": "test", "metric": "gain over base"}
    cells = [
        Cell(row="iteration-1", judge=judge, decoding=decoding, value=value, standard_error=error, n=96, **place)
        for (judge, decoding), (value, error) in values.items()
    ]
    for row, value in (("base", 10.0), ("iteration-1", length)):
        cells.append(Cell(table="test", row=row, metric="length", decoding=WARM, value=value))
    for judge in (REWARD, SECOND) if over_control is not None else ():
        place["metric"] = "gain over control"
        cells.append(
            Cell(row="iteration-1", judge=judge, decoding=WARM, value=over_control, standard_error=0.1, n=96, **place)
        )
    return cells


def all_at(value: float) -> Gains:
    return {(judge, decoding): (value, 0.1) for judge in (REWARD, SECOND) for decoding in (GREEDY, WARM)}
