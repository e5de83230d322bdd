"""Training without padding: the rows of a micro-batch laid end to end, what they begin with in common computed once.

TRL pads the rows of a micro-batch to the longest of them and computes a prompt twice, with the chosen and with the rejected
response. Here it keeps its losses and metrics, and its call of the policy is answered without either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from gshf_release import packing
from gshf_release.distribution import distributed

IGNORED = -100
"""The label of a token that no loss reads."""


def unpadded(trainer: type) -> Any:
    """Return one of TRL's trainers that computes without padding while the policy is in `without_padding`."""

    class Unpadded(distributed(trainer)):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            packed = transformers_model(self.model).config._attn_implementation == packing.ATTENTION
            return super().compute_loss(_Policy(model) if packed else model, inputs, *args, **options)

    return Unpadded


@contextlib.contextmanager
def without_padding(model: Any, lengths: Sequence[int]) -> Iterator[bool]:
    """Let the trainer of a policy compute without padding for a while, if the policy's architecture allows it; say whether.

    Args:
        model: The policy, an adapter's too.
        lengths: In tokens, of what it is trained on.
    """
    policy = transformers_model(model)
    packed = packing.can_pack(policy, max(lengths))
    with packing.attention_of(policy) if packed else contextlib.nullcontext():
        yield packed


def transformers_model(model: Any) -> Any:
    """Return the transformers model, also of one with an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _Policy:
    """A policy that is called with padded rows, and computes them packed."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *, input_ids: Any, attention_mask: Any, labels: Any, **options: Any) -> Any:
        """Return TRL's output: for each row and each next token, zero where the label is ignored, (rows, width - 1)."""
        import torch

        rows = [
            row[:length] for row, length in zip(input_ids.tolist(), attention_mask.sum(dim=1).tolist(), strict=True)
        ]
        answers = [row[: len(ids)] for row, ids in zip(labels.tolist(), rows, strict=True)]
        # The last token of the prompt belongs to each row: what follows it differs.
        prompts = [next((at for at, label in enumerate(row) if label != IGNORED), len(row)) for row in answers]
        order = sorted(range(len(rows)), key=rows.__getitem__)
        packed = packing.pack([rows[index] for index in order], [max(0, prompts[index] - 1) for index in order])
        begins = [(index, len(rows[index]) - own) for index, own in zip(order, packed.own, strict=True)]
        wanted = [label for index, begin in begins for label in (IGNORED, *answers[index][begin + 1 :])]
        device = input_ids.device
        output = self._model(**packing.inputs(packed, device), labels=torch.tensor([wanted], device=device), **options)
        # The value at a token is that of the next; the last one of a row has none.
        width = input_ids.shape[1] - 1
        there = torch.tensor(
            [index * width + at for index, begin in begins for at in range(begin, len(rows[index]) - 1)],
            dtype=torch.long,
        )
        ends = {end - 1 for end in torch.tensor(packed.own).cumsum(0).tolist()}
        here = torch.tensor([at for at in range(len(packed.ids)) if at not in ends], dtype=torch.long)
        here, there = here.to(device), there.to(device)

        def padded(values: Any) -> Any:
            if not isinstance(values, torch.Tensor) or values.dim() < 2:
                return values
            table = values.new_zeros(len(rows) * width).index_copy(0, there, values[0].index_select(0, here))
            return table.view(len(rows), width)

        return type(output)(**{name: padded(values) for name, values in output.items()})
