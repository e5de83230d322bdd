"""From measured tokens to result cells: how far a quantized file stands from the weights that it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.data import statistics
from gshf_release.data.results import Cell, cell
from gshf_release.data.statistics import Estimate, percent
from gshf_release.run.directory import read_json

TABLE = "quantization"
DOCUMENT = "measured.json"
PERPLEXITY, KL, KL_TAIL, SAME_TOP = "perplexity", "KL divergence", "KL divergence, 99.9%", "same top token"
SIZE, BITS, PROMPTS = "size", "bits per weight", "equal prompt ids"
TAIL = 0.999
DIGITS = {SIZE: 1, BITS: 2, PERPLEXITY: 3, KL: 4, KL_TAIL: 4, SAME_TOP: 2, PROMPTS: 1}
"""Decimals that a card shows."""
IMPLEMENTATION = "BF16 of transformers"
"""The baseline under which the file of another engine shows how much the engine itself differs."""


def cells(folder: Path, place: str, table: str = TABLE) -> list[Cell]:
    """Return the cells of a folder of measurements.

    Args:
        folder: `measured.json`, and one array of measured tokens a file and reference.
        place: The folder's name in the cells' `artefact`.
        table: Which table the cells belong to; a repository has one.
    """
    document = read_json(folder / DOCUMENT)
    return [entry for file in document["files"] for entry in _of_file(file, document["text"], folder, place, table)]


def _of_file(file: Mapping[str, Any], text: Mapping[str, Any], folder: Path, place: str, table: str) -> list[Cell]:
    common: dict[str, Any] = {"table": table, "row": file["row"]}
    size = {"artefact": f"{place}/{DOCUMENT}", "note": file["made_with"], **common}
    bits = 8 * file["size"] / file["parameters"]
    found = [
        Cell(metric=SIZE, value=file["size"] / 1e6, unit="MB", **size),
        Cell(metric=BITS, value=bits, unit="bits", **size),
    ]
    if file.get("prompts"):
        share = percent(Estimate(file["prompts"]["equal"] / file["prompts"]["n"], None, file["prompts"]["n"]))
        found.append(cell(share, metric=PROMPTS, unit="%", **size))
    for baseline, array in file["measured"].items():
        tokens = np.load(folder / array)
        note = f"{text['description']}, sha256 {text['sha256'][:16]}; {file['engine']}"
        found += _of_tokens(
            tokens, baseline=baseline, artefact=f"{place}/{array}", note=note, own=file["own"], **common
        )
    return found


def _of_tokens(tokens: Any, *, baseline: str, own: bool, **place: Any) -> list[Cell]:
    """Return perplexity and the distances from one reference; a file that is the reference has only the first.

    Standard errors are clustered by sequence: tokens of one text are not independent.
    """
    clusters = [str(int(number)) for number in tokens[:, 3]]
    loss = statistics.clustered_mean(tokens[:, 0].tolist(), clusters)
    perplexity = math.exp(loss.value)
    error = None if loss.standard_error is None else perplexity * loss.standard_error
    found = []
    if baseline != IMPLEMENTATION:
        found.append(cell(Estimate(perplexity, error, loss.n), metric=PERPLEXITY, **place))
    if own and baseline != IMPLEMENTATION:
        return found
    place |= {"baseline": baseline}
    divergence = statistics.clustered_mean(tokens[:, 1].tolist(), clusters)
    tail = Estimate(float(np.quantile(tokens[:, 1], TAIL)), None, loss.n)
    same = percent(statistics.clustered_mean(tokens[:, 2].tolist(), clusters))
    return [
        *found,
        cell(divergence, metric=KL, unit="nats", **place),
        cell(tail, metric=KL_TAIL, unit="nats", **place),
        cell(same, metric=SAME_TOP, unit="%", **place),
    ]


def shown(found: Sequence[Cell], row: str, baseline: str = "") -> dict[str, str]:
    """Return the numbers of a row as a card shows them, by metric; a missing one is `not measured`.

    Args:
        found: The cells of one repository.
        row: Of a file, or of the reference.
        baseline: `IMPLEMENTATION` for how far the engines stand apart.
    """
    own = [entry for entry in found if entry.row == row and (entry.baseline == IMPLEMENTATION) == bool(baseline)]
    texts = dict.fromkeys(DIGITS, "not measured")
    for entry in own:
        if entry.value is not None and entry.metric in DIGITS:
            digits = DIGITS[entry.metric]
            error = "" if entry.standard_error is None else f" ± {entry.standard_error:.{digits}f}"
            texts[entry.metric] = f"{entry.value:.{digits}f}{error}"
    return texts
