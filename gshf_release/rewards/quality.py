"""Measure a reward model on preferences it was not trained on: accuracy, length, calibration. Pure functions.

A preference is given by its margin, the score of the chosen answer minus that of the rejected one. A margin of zero decides
nothing and counts one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gshf_release.data import statistics
from gshf_release.data.hashing import seed_from
from gshf_release.data.records import PreferenceScore
from gshf_release.data.results import Cell, cell

MATCHED = 0.9
"""Two answers are length-matched if the shorter has at least this share of the tokens of the longer."""
BINS = 10
RESAMPLES = 1000


class Bin(NamedTuple):
    """Preferences whose confidence lies in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean of sigmoid(|margin|)."""
    accuracy: float | None
    standard_error: float | None
    """Of the accuracy, with prompts as clusters."""


class Calibration(NamedTuple):
    """Expected calibration error, and the bins it was computed from."""

    error: statistics.Estimate
    bins: list[Bin]


def hits(margins: Sequence[float]) -> list[float]:
    """Return 1 for a positive margin, 0 for a negative one, 0.5 for none."""
    return [0.5 if margin == 0 else float(margin > 0) for margin in margins]


def length_matched(tokens: int, other: int) -> bool:
    """Return whether two lengths are within ten percent: the shorter is at least 0.9 of the longer."""
    return min(tokens, other) >= MATCHED * max(tokens, other)


def calibration(margins: Sequence[float], clusters: Sequence[str], *, bins: int = BINS) -> Calibration:
    """Return the expected calibration error of sigmoid(margin) (arXiv 1706.04599, section 2) with its bins.

    A Bradley-Terry model says that the answer with the higher score is better with the probability sigmoid(|margin|), which is
    the confidence, between 0.5 and 1. The error is sum over equal-width bins of n_b / n * |accuracy_b - confidence_b|; its
    standard error is that of a bootstrap over clusters (prompts). It is biased upwards for few preferences.

    Args:
        margins: One per preference.
        clusters: The prompt of each.
        bins: Between 0.5 and 1.
    """
    array = np.abs(np.asarray(margins, dtype=np.float64))
    confidence = 1 / (1 + np.exp(-array))
    correct = np.asarray(hits(margins))
    place = np.clip(np.ceil((confidence - 0.5) * 2 * bins).astype(int) - 1, 0, bins - 1)
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    owner = np.asarray([names[name] for name in clusters])
    gaps = np.zeros((len(names), bins))
    np.add.at(gaps, (owner, place), correct - confidence)
    sizes = np.bincount(owner, minlength=len(names)).astype(np.float64)
    value = float(np.abs(gaps.sum(axis=0)).sum() / len(array))
    error = _bootstrap_error(gaps, sizes) if len(names) > 1 else None
    listed = [_bin(number, bins, place == number, confidence, correct, clusters) for number in range(bins)]
    return Calibration(statistics.Estimate(value, error, len(array)), listed)


def _bootstrap_error(gaps: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation of the error over resamples of the clusters; the draws depend on their number alone."""
    draws = np.random.default_rng(seed_from("calibration", len(sizes)))
    values = []
    for _ in range(RESAMPLES):
        weights = np.bincount(draws.integers(0, len(sizes), len(sizes)), minlength=len(sizes))
        values.append(np.abs(weights @ gaps).sum() / (weights @ sizes))
    return float(np.std(values, ddof=1))


def _bin(
    number: int,
    bins: int,
    inside: npt.NDArray[np.bool_],
    confidence: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
    clusters: Sequence[str],
) -> Bin:
    low, high = 0.5 + number / (2 * bins), 0.5 + (number + 1) / (2 * bins)
    if not inside.any():
        return Bin(low, high, 0, None, None, None)
    found = statistics.clustered_mean(
        correct[inside].tolist(), [name for name, chosen in zip(clusters, inside, strict=True) if chosen]
    )
    return Bin(low, high, found.n, float(confidence[inside].mean()), found.value, found.standard_error)


def cells(rows: Sequence[PreferenceScore], *, row: str, artefact: str) -> list[Cell]:
    """Return held-out accuracy, the same on length-matched pairs, what length alone would give, and calibration."""
    place = {"table": "reward-model", "row": row, "artefact": artefact}
    margins = [entry.chosen_score - entry.rejected_score for entry in rows]
    prompts = [entry.prompt_id for entry in rows]
    matched = [length_matched(entry.chosen_tokens, entry.rejected_tokens) for entry in rows]
    found = [_share(hits(margins), prompts, metric="held-out accuracy", **place)]
    inside = [number for number, chosen in enumerate(matched) if chosen]
    if inside:
        values = [hits(margins)[number] for number in inside]
        owners = [prompts[number] for number in inside]
        note = "the shorter answer has at least 90 % of the longer one's tokens"
        found.append(_share(values, owners, metric="accuracy on length-matched pairs", note=note, **place))
    longer = hits([entry.chosen_tokens - entry.rejected_tokens for entry in rows])
    note = "of preferring the longer answer; equal lengths count one half"
    found.append(_share(longer, prompts, metric="length-only accuracy", note=note, **place))
    error = statistics.percent(calibration(margins, prompts).error)
    note = f"sigmoid(|margin|) in {BINS} equal bins from 0.5 to 1; standard error from {RESAMPLES} resamples of prompts"
    found.append(cell(error, metric="expected calibration error", unit="%", note=note, **place))
    return found


def _share(values: Sequence[float], clusters: Sequence[str], **place: str) -> Cell:
    return cell(statistics.percent(statistics.clustered_mean(values, clusters)), unit="%", **place)
