"""Packs rows of token ids end to end: a prefix that rows share is computed once, and nothing is padded.

The responses to one prompt share that prompt as a prefix, and with many templates so do all conversations. What a causal model
computes for a token depends on the tokens before it alone, so it is the same in all rows that share them. Every layer but
attention reads such a token once; attention, a small part of the work, is computed for each row whole.

    rows         1 2 3 4 | 1 2 5 | 1 2 5 6 7 | 8        13 tokens, 5 of them shared

    ids          1 2 3 4   5       6 7         8        (tokens,), each row's own tokens side by side
    positions    0 1 2 3   2       3 4         0        in its row, for RoPE
    indices[0]   0 1 2 3                                where the row's tokens stand in `ids`
    indices[1]   0 1       4
    indices[2]   0 1       4       5 6
    indices[3]                                 7
    added        4         1       2           1
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gshf_release.errors import EngineError
from gshf_release.models import rope
from gshf_release.models.internals import require_internals

FAMILIES = {"gemma", "llama", "mistral", "qwen2", "qwen3"}
"""Causal families whose layers are attention and nothing else that sees neighbouring tokens, with a linear head."""
ATTENTION = "shared-prefix"
"""The name under which transformers finds `attend`."""


class Packed(NamedTuple):
    """Holds rows laid end to end, each without the prefix that it shares with the one before."""

    ids: list[int]
    positions: list[int]
    """Of each id in its own row."""
    indices: list[list[int]]
    """For each row, where its tokens stand in `ids`."""
    added: list[int]
    """For each row, how many of them, the last ones, it added."""


def attention_of(model: Any) -> str:
    """Return the name of the attention by which a model from transformers computes.

    Raises:
        RunError: This version of transformers keeps it elsewhere.
    """
    require_internals(
        "transformers", model.config, "_attn_implementation", consequence="rows cannot be computed without padding"
    )
    return str(model.config._attn_implementation)


def can_pack(model: Any, longest: int | None = None) -> bool:
    """Return whether a model computes packed rows as it does single ones.

    Args:
        model: From transformers.
        longest: Tokens in the longest row, if that is known: a sliding window that holds them all is none, and rotary
            frequencies that depend on a row's length may not do so yet.
    """
    config = model.config
    # The longest of several rows would decide on rotary frequencies that depend on the length, and `attend` hides nothing that
    # has left a sliding window: both are fine as long as every row fits.
    windows = [getattr(config, "sliding_window", None), rope.window(config.to_dict())]
    bound = min((window for window in windows if window is not None), default=None)
    return (
        config.model_type in FAMILIES
        and attention_of(model) == "sdpa"  # the kernel that `attend` calls, so that the numbers stay the same
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and (bound is None or (longest is not None and longest <= bound))
    )


def batches(rows: Sequence[Sequence[int]], size: int, workers: int, tokens: int | None) -> list[list[int]]:
    """Return batches of positions in which rows that share a prefix are neighbours; those of most tokens first.

    Args:
        rows: Ids.
        size: Rows in a batch at most.
        workers: How many batches are computed side by side; few rows are divided among them.
        tokens: In a batch at most, unless a single row has more; None sets no bound.
    """
    # In lexicographic order no other row shares more of a row's prefix than one of its neighbours does.
    order = sorted(range(len(rows)), key=lambda index: list(rows[index]))
    shared = _shared_prefixes(rows, order)
    added = [len(rows[index]) - prefix for index, prefix in zip(order, shared, strict=True)]
    bound = min(tokens or math.inf, math.ceil(sum(added) / workers))
    made: list[tuple[int, list[int]]] = []
    for index, tokens_added in zip(order, added, strict=True):
        if made and len(made[-1][1]) < size and made[-1][0] + tokens_added <= bound:
            made[-1] = (made[-1][0] + tokens_added, [*made[-1][1], index])
        else:
            made.append((len(rows[index]), [index]))  # the first row of a batch shares nothing with the batch before
    return [batch for _, batch in sorted(made, key=lambda entry: -entry[0])]


def pack(rows: Sequence[Sequence[int]], at_most: Sequence[int] | None = None) -> Packed:
    """Return rows packed; those that share a prefix must be neighbours.

    Args:
        rows: Ids.
        at_most: How many of its first tokens each row may share; default: all.
    """
    packed = Packed([], [], [], [])
    indices: list[int] = []
    shared = _shared_prefixes(rows, range(len(rows)))
    for number, (row, prefix) in enumerate(zip(rows, shared, strict=True)):
        prefix = prefix if at_most is None else min(prefix, at_most[number])
        begin = len(packed.ids)
        packed.ids.extend(row[prefix:])
        packed.positions.extend(range(prefix, len(row)))
        # The prefix stands where the row before has it, which may itself have it from the row before that.
        indices = [*indices[:prefix], *range(begin, len(packed.ids))]
        packed.indices.append(indices)
        packed.added.append(len(row) - prefix)
    return packed


def hidden_states(model: Any, packed: Packed) -> Any:
    """Return the last hidden states of packed rows, (tokens, width); call it within `packed_attention`."""
    return model.base_model(**inputs(packed, model.device), use_cache=False).last_hidden_state[0]


def inputs(packed: Packed, device: Any) -> dict[str, Any]:
    """Return the keyword arguments with which a model within `packed_attention` computes packed rows."""
    import torch

    # A row that equals the one before adds no token, so attention has nothing to compute for it.
    rows = [(indices, added) for indices, added in zip(packed.indices, packed.added, strict=True) if added]
    indices = torch.tensor([index for indices, _ in rows for index in indices], dtype=torch.long, device=device)
    return {
        "input_ids": torch.tensor([packed.ids], device=device),
        "position_ids": torch.tensor([packed.positions], device=device),
        "packed_rows": (indices, [(len(indices), added) for indices, added in rows]),
    }


@contextlib.contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Let a model read packed rows, and nothing else, for a while.

    Raises:
        EngineError: The model keeps its own attention, under which packed rows would see each other.
    """
    from transformers import AttentionInterface

    # No mask is registered under this name, so transformers builds none: `attend` gets None, whatever the positions look like.
    AttentionInterface.register(ATTENTION, attend)
    former = attention_of(model)
    model.set_attn_implementation(ATTENTION)
    if attention_of(model) != ATTENTION:  # transformers only warns
        raise EngineError(f"{type(model).__name__} does not take another attention.")
    try:
        yield
    finally:
        model.set_attn_implementation(former)


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: None, *, packed_rows: Any, **options: Any
) -> tuple[Any, None]:
    """Return the attention of packed rows, (1, tokens, heads, width), and no weights: each row attends to itself alone.

    Args:
        module: The attention layer.
        query: States, (1, heads, tokens, width).
        key: The same, perhaps with fewer heads.
        value: The same.
        attention_mask: None; rows are kept apart by their indices.
        packed_rows: Where the tokens of each row that adds any stand, one row after the other; and for each such row its
            tokens, and how many of them, the last ones, it adds.
        options: As transformers gives them.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    indices, rows = packed_rows
    lengths = [length for length, _ in rows]
    # Each row is gathered whole, (1, heads, length, width): a shared token is read by every row that shares it, and in the
    # backward pass the gradients of all of them are summed in it.
    states = [each.index_select(2, indices).split(lengths, dim=2) for each in (query, key, value)]
    found = []
    for (length, added), *row in zip(rows, *states, strict=True):
        # With the queries of the added tokens alone, SDPA would align its causal mask at the upper left and hide the wrong
        # keys. So the outputs of the prefix are computed too, and dropped.
        made, _ = sdpa_attention_forward(module, *row, attention_mask, **options)
        found.append(made[:, length - added :])
    # The rows' added tokens, row after row, are the order of `Packed.ids`.
    return torch.cat(found, dim=1), None


def _shared_prefixes(rows: Sequence[Sequence[int]], order: Sequence[int]) -> Iterator[int]:
    """Yield, for each row in the order given, how many of its first tokens the row before has too."""
    before: Sequence[int] = []
    for index in order:
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, rows[index], strict=False))
        yield sum(1 for _ in alike)
        before = rows[index]
