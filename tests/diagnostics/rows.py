"""Hand-made answers."""

from __future__ import annotations

from gshf_release.records import FinishReason, Sample

TEMPERATURES = {"greedy": 0.0}


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
    temperature = TEMPERATURES.get(decoding) or (0.0 if decoding == "greedy" else float(decoding.removeprefix("T=")))
    return Sample(prompt, index, decoding, temperature, [1], list(range(tokens)), text, reason, "f" * 64)
