"""Logits of a whole text against a reference, token by token; needs numpy alone, so that every environment has it.

A text is a list of token sequences. Scored is every token of a sequence but its first, given those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = Callable[[Sequence[int]], NDArray[Any]]
"""From the ids of a sequence to its logits, shape (tokens, vocabulary)."""
COLUMNS = ("negative log-likelihood", "KL divergence", "same top token", "sequence")
"""Of a file of measured tokens: nats, nats (reference from quantized), 0 or 1, and the number of the sequence."""


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-probabilities along the last axis, in float64."""
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return result


def scored(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens of a text are scored."""
    return sum(len(sequence) - 1 for sequence in sequences)


def record(logits: Logits, sequences: Sequence[Sequence[int]], path: Path, vocabulary: int) -> None:
    """Write the reference: logits of every scored token, float32, shape (scored tokens, vocabulary), as one raw file."""
    with path.open("wb") as stream:
        for sequence in sequences:
            rows = np.ascontiguousarray(logits(sequence)[:-1, :vocabulary], dtype=np.float32)
            stream.write(rows.tobytes())


def compare(
    logits: Logits, sequences: Sequence[Sequence[int]], reference: Path, vocabulary: int
) -> NDArray[np.float64]:
    """Return one row a scored token: the `COLUMNS`.

    Args:
        logits: Of the quantized model.
        sequences: The text.
        reference: What `record` wrote for the same text.
        vocabulary: Length of a row of the reference.
    """
    expected = np.memmap(reference, dtype=np.float32, mode="r", shape=(scored(sequences), vocabulary))
    parts, start = [], 0
    for number, sequence in enumerate(sequences):
        stop = start + len(sequence) - 1
        wanted = log_softmax(np.asarray(expected[start:stop]))
        found = log_softmax(logits(sequence)[:-1, :vocabulary])
        chosen = found[np.arange(len(found)), np.asarray(sequence[1:])]
        divergence = (np.exp(wanted) * (wanted - found)).sum(axis=-1)
        same = wanted.argmax(axis=-1) == found.argmax(axis=-1)
        parts.append(np.stack([-chosen, divergence, same.astype(np.float64), np.full(len(found), float(number))], 1))
        start = stop
    return np.concatenate(parts)
