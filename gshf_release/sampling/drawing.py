"""The next token of every row of a batch, each drawn by its own rule and its own random number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gshf_release.sampling.protocol import Decoding


def draw_tokens(logits: Any, decodings: Sequence[Decoding], uniform: Sequence[float]) -> Any:
    """Return one token per row, shape (rows,): the likeliest at temperature 0, else the one that `uniform` picks.

    Inverse-transform sampling: the token i with F(i-1) <= u < F(i), where F is the cumulative distribution after temperature,
    top-k and top-p. A row's token depends on that row alone.

    Args:
        logits: (rows, vocabulary).
        decodings: One per row.
        uniform: One number per row, in [0, 1).
    """
    drawn = [place for place, decoding in enumerate(decodings) if decoding.temperature > 0]
    if len(drawn) == len(decodings):
        return _drawn(logits, decodings, uniform)
    tokens = logits.argmax(dim=-1)
    if drawn:
        tokens[drawn] = _drawn(
            logits[drawn], [decodings[place] for place in drawn], [uniform[place] for place in drawn]
        )
    return tokens


def _drawn(logits: Any, decodings: Sequence[Decoding], uniform: Sequence[float]) -> Any:
    import torch

    temperature = torch.tensor([decoding.temperature for decoding in decodings], device=logits.device)
    probabilities = torch.softmax(logits.float() / temperature.unsqueeze(1), dim=-1)
    cumulative = _truncated(probabilities, decodings).cumsum(dim=-1, dtype=torch.float64)
    numbers = torch.tensor(uniform, dtype=torch.float64, device=logits.device).unsqueeze(1)
    tokens = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
    return tokens[:, 0].clamp(max=logits.shape[1] - 1)


def _truncated(probabilities: Any, decodings: Sequence[Decoding]) -> Any:
    """Return the distributions with everything outside top-k and top-p set to zero (not renormalised)."""
    import torch

    if all(decoding.top_k == 0 and decoding.top_p == 1 for decoding in decodings):
        return probabilities
    device, vocabulary = probabilities.device, probabilities.shape[1]
    top_p = torch.tensor([decoding.top_p for decoding in decodings], device=device).unsqueeze(1)
    top_k = torch.tensor([decoding.top_k or vocabulary for decoding in decodings], device=device).unsqueeze(1)
    ordered, indices = probabilities.sort(dim=-1, descending=True)
    keep = (ordered.cumsum(dim=-1, dtype=torch.float64) - ordered) < top_p
    keep &= torch.arange(vocabulary, device=device) < top_k
    return torch.zeros_like(probabilities).scatter_(1, indices, torch.where(keep, ordered, 0.0))
