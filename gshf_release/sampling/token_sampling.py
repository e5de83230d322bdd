"""The next token of every row of a batch, each drawn by its own rule and its own random number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gshf_release.sampling.protocol import Decoding


def draw_tokens(
    logits: Any,
    decodings: Sequence[Decoding],
    uniform: Sequence[float],
    likeliest: Callable[[list[int]], Any] | None = None,
) -> Any:
    """Return one token per row, shape (rows,): the likeliest at temperature 0, else the one that `uniform` picks.

    Inverse-transform sampling: the token i with F(i-1) <= u < F(i), where F is the cumulative distribution after temperature,
    top-k and top-p. A row's token depends on that row alone.

    Args:
        logits: (rows, vocabulary).
        decodings: One per row.
        uniform: One number per row, in [0, 1).
        likeliest: Finds the likeliest tokens of the rows at these places; by default in the logits.
    """
    import torch

    drawn = [place for place, decoding in enumerate(decodings) if decoding.temperature > 0]
    if len(drawn) == len(decodings):
        return _drawn(logits, decodings, uniform)
    greedy = [place for place, decoding in enumerate(decodings) if decoding.temperature == 0]
    tokens = torch.zeros(len(decodings), dtype=torch.long, device=logits.device)
    tokens[greedy] = logits[greedy].argmax(dim=-1) if likeliest is None else likeliest(greedy)
    if drawn:
        tokens[drawn] = _drawn(
            logits[drawn], [decodings[place] for place in drawn], [uniform[place] for place in drawn]
        )
    return tokens


def _drawn(logits: Any, decodings: Sequence[Decoding], uniform: Sequence[float]) -> Any:
    import torch

    cumulative = probabilities(logits, decodings).cumsum(dim=-1, dtype=torch.float64)
    numbers = torch.tensor(uniform, dtype=torch.float64, device=logits.device).unsqueeze(1)
    tokens = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
    return tokens[:, 0].clamp(max=logits.shape[1] - 1)


def probabilities(logits: Any, decodings: Sequence[Decoding]) -> Any:
    """Return what rows are drawn from, (rows, vocabulary), zero outside top-k and top-p and not renormalised to sum to 1.

    The order is that of transformers' warpers and of vLLM: temperature, then top-k, then top-p of what top-k has left,
    renormalised. All tokens that tie with the k-th likeliest stay.
    """
    import torch

    temperature = torch.tensor([decoding.temperature for decoding in decodings], device=logits.device)
    scaled = logits.float() / temperature.unsqueeze(1)
    if all(decoding.top_k == 0 and decoding.top_p == 1 for decoding in decodings):
        return torch.softmax(scaled, dim=-1)
    device, vocabulary = logits.device, logits.shape[1]
    top_p = torch.tensor([decoding.top_p for decoding in decodings], dtype=torch.float64, device=device).unsqueeze(1)
    top_k = torch.tensor([min(decoding.top_k or vocabulary, vocabulary) for decoding in decodings], device=device)
    ordered, indices = scaled.sort(dim=-1)  # ascending, as in both, so that ties at the edge of top-p fall as theirs
    smallest = ordered.gather(1, (vocabulary - top_k).unsqueeze(1))
    found = torch.softmax(ordered.masked_fill(ordered < smallest, -torch.inf), dim=-1)
    keep = found.cumsum(dim=-1, dtype=torch.float64) > 1 - top_p
    keep[:, -1] = True
    return torch.zeros_like(found).scatter_(1, indices, torch.where(keep, found, 0.0))
