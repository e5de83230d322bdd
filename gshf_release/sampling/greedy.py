"""The last step of greedy decoding in FP32: the likeliest token, where logits of two bytes tie or have changed places.

A BF16 logit near 16 stands for everything within 1/16 of it, so exact ties are common, and which of two tokens is taken
depends on their numbers in the vocabulary. The model's last hidden state is multiplied again in FP32, but only by the rows of
the output matrix whose coarse logits come near the largest: a handful of the vocabulary, at little cost.
"""

from __future__ import annotations

import threading
from typing import Any

NEAR = 2**-5
"""Relative to the largest logit: four steps of BF16, more than rounding the product and what follows it (scale, cap) moves."""
MOST_CANDIDATES = 256
"""In a row; where more come near, the whole product is cheaper."""


class LikeliestToken:
    """Finds the likeliest tokens of a model whose output matrix has fewer bits than FP32.

    What follows the product, such as a cap or a scale, leaves the order of the logits as it is.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._seen = threading.local()  # batches are computed in several threads
        head = model.get_output_embeddings()
        coarse = isinstance(head, torch.nn.Linear) and head.weight.dtype in (torch.bfloat16, torch.float16)
        self._head = head if coarse else None
        if coarse:
            head.register_forward_pre_hook(self._note)

    def _note(self, module: Any, given: tuple[Any, ...]) -> None:
        self._seen.hidden = given[0]

    def hidden(self) -> Any:
        """Return what the output matrix was last given in this thread, at the last column, (rows, width); None if in FP32."""
        return None if self._head is None else self._seen.hidden[:, -1]

    def __call__(self, logits: Any, hidden: Any) -> Any:
        """Return the likeliest token of each row, (rows,).

        Args:
            logits: As the model gave them, (rows, vocabulary).
            hidden: The last hidden states, (rows, width), or None.
        """
        import torch

        if self._head is None or hidden is None:
            return logits.argmax(dim=-1)
        logits, weight, bias = logits.float(), self._head.weight, self._head.bias
        largest = logits.amax(dim=-1, keepdim=True)
        count = int((logits >= largest - NEAR * largest.abs()).sum(dim=-1).max())
        if count > MOST_CANDIDATES:
            tokens = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
            exact = hidden.float() @ weight.float().T
        else:
            tokens = logits.topk(count, dim=-1).indices.sort(dim=-1).values  # of equals, the first, as argmax has it
            exact = torch.einsum("rw,rcw->rc", hidden.float(), weight[tokens].float())
        if bias is not None:
            exact += bias[tokens].float()
        return tokens.gather(1, exact.argmax(dim=-1, keepdim=True))[:, 0]
