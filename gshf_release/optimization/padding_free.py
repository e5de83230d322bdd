"""Trains without padding: the rows of a micro-batch are packed, and a prefix that they share is computed once.

TRL pads the rows of a micro-batch to the longest of them and computes a prompt twice, with the chosen and with the rejected
response; its own `padding_free` does nothing in DPO since a refactor (TRL 1.16 warns and pads). Here TRL keeps its losses and
metrics, and its call of the policy is answered without padding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from gshf_release.models import packing
from gshf_release.optimization.fsdp import distributed

IGNORED = -100
"""The label of a token that no loss reads."""


def padding_free(trainer: type) -> Any:
    """Return one of TRL's trainers that computes without padding while the policy is within `without_padding`."""

    class PaddingFree(distributed(trainer)):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            packed = packing.attention_of(transformers_model(self.model)) == packing.ATTENTION
            # Around the model as accelerate has wrapped it, so that the hooks of DDP, FSDP and autocast see the packed call.
            return super().compute_loss(PackedPolicy(model) if packed else model, inputs, *args, **options)

    return PaddingFree


@contextlib.contextmanager
def without_padding(model: Any, lengths: Sequence[int]) -> Iterator[bool]:
    """Let the trainer of a policy compute without padding for a while, if the policy's architecture allows it; say whether.

    Args:
        model: The policy, an adapter's too.
        lengths: In tokens, of what it is trained on.
    """
    policy = transformers_model(model)
    packed = packing.can_pack(policy, max(lengths))
    with packing.packed_attention(policy) if packed else contextlib.nullcontext():
        yield packed


def transformers_model(model: Any) -> Any:
    """Return the transformers model, also of one with an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class PackedPolicy:
    """Wraps a policy that TRL calls with padded rows, and computes them packed.

    A prompt `p q r` with the chosen response `a b` and the rejected one `c d e`, `-` for `IGNORED`:

        padded ids       p q r a b 0      packed ids       p q r a b r c d e
                         p q r c d e      its labels       - - - a b - c d e
        padded labels    - - - a b -      packed values    0 0 a b . c d e
                         - - - c d e      padded values    0 0 a b 0
                                                           0 0 c d e

    The value at a token belongs to the token after it. So the value at a row's last token, `.`, is none of that row: it would
    belong to the first token of the next. And `r`, whose value differs between the rows, is the one token of the prompt that
    each row has to itself.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *, input_ids: Any, attention_mask: Any, labels: Any, **options: Any) -> Any:
        """Return TRL's output: for each row and each next token, zero where the label is ignored, (rows, width - 1)."""
        import torch

        rows = [
            row[:length] for row, length in zip(input_ids.tolist(), attention_mask.sum(dim=1).tolist(), strict=True)
        ]
        answers = [row[: len(ids)] for row, ids in zip(labels.tolist(), rows, strict=True)]
        prompts = [next((at for at, label in enumerate(row) if label != IGNORED), len(row)) for row in answers]
        # DPO's batches hold all chosen rows, then all rejected ones; sorted, the two of a pair are neighbours.
        order = sorted(range(len(rows)), key=rows.__getitem__)
        packed = packing.pack([rows[index] for index in order], [max(0, prompts[index] - 1) for index in order])
        # Each row with the first position that it added. The token there is always one of the prompt, or the first of the
        # row, so its label is lost to no loss; it must be ignored, as the value before it is of another row.
        begins = [(index, len(rows[index]) - added) for index, added in zip(order, packed.added, strict=True)]
        wanted = [label for index, begin in begins for label in (IGNORED, *answers[index][begin + 1 :])]
        device = input_ids.device
        output = self._model(**packing.inputs(packed, device), labels=torch.tensor([wanted], device=device), **options)
        # From `here` in the packed values, (tokens,), to `there` in the flattened table of (rows, width - 1). Positions before
        # a row's `begin` stay zero: their labels are ignored in every row.
        width = input_ids.shape[1] - 1
        there = torch.tensor(
            [index * width + at for index, begin in begins for at in range(begin, len(rows[index]) - 1)],
            dtype=torch.long,
        )
        ends = {end - 1 for end in torch.tensor(packed.added).cumsum(0).tolist()}
        here = torch.tensor([at for at in range(len(packed.ids)) if at not in ends], dtype=torch.long)
        here, there = here.to(device), there.to(device)

        def padded(values: Any) -> Any:
            if not isinstance(values, torch.Tensor) or values.dim() < 2:  # the loss, and fields that were not asked for
                return values
            table = values.new_zeros(len(rows) * width).index_copy(0, there, values[0].index_select(0, here))
            return table.view(len(rows), width)

        return type(output)(**{name: padded(values) for name, values in output.items()})
