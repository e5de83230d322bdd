"""Conversations laid end to end: what they begin with in common is computed once, and nothing is padded.

The responses to one prompt begin with the same tokens, and with many templates so do all conversations. What a causal model
makes of a token depends on the tokens before it alone, so it is the same in all of them. Every layer but attention reads such
a token once; attention, a small part of the work, is computed for each conversation whole.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gshf_release import rope
from gshf_release.errors import EngineError

FAMILIES = {"gemma", "llama", "mistral", "qwen2", "qwen3"}
"""Causal families whose layers are attention and nothing else that sees neighbouring tokens, with a linear head."""
ATTENTION = "shared-beginnings"
"""The name under which transformers finds `attend`."""


class Packed(NamedTuple):
    """Rows laid end to end, each without what it shares with the one before."""

    ids: list[int]
    positions: list[int]
    """Of each id in its own row."""
    places: list[list[int]]
    """For each row, where its tokens stand in `ids`."""
    own: list[int]
    """For each row, how many of them, the last ones, it added."""


def can_pack(model: Any, longest: int | None = None) -> bool:
    """Return whether a model computes packed rows as it does single ones.

    Args:
        model: From transformers.
        longest: Tokens in the longest row, if that is known: a sliding window that holds them all is none, and rotary
            frequencies that depend on a row's length may not do so yet.
    """
    config = model.config
    windows = [getattr(config, "sliding_window", None), rope.window(config.to_dict())]
    bound = min((window for window in windows if window is not None), default=None)
    return (
        config.model_type in FAMILIES
        and config._attn_implementation == "sdpa"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and (bound is None or (longest is not None and longest <= bound))
    )


def batches(rows: Sequence[Sequence[int]], size: int, workers: int, tokens: int | None) -> list[list[int]]:
    """Return batches of positions in which rows that begin alike are neighbours; those of most tokens first.

    Args:
        rows: Ids.
        size: Rows in a batch at most.
        workers: How many batches are computed side by side; few rows are divided among them.
        tokens: In a batch at most, unless a single row has more; None sets no bound.
    """
    order = sorted(range(len(rows)), key=lambda index: list(rows[index]))
    added = [len(row) - shared for row, shared in zip((rows[i] for i in order), _shared(rows, order), strict=True)]
    bound = min(tokens or math.inf, math.ceil(sum(added) / workers))
    made: list[tuple[int, list[int]]] = []
    for index, own in zip(order, added, strict=True):
        if made and len(made[-1][1]) < size and made[-1][0] + own <= bound:
            made[-1] = (made[-1][0] + own, [*made[-1][1], index])
        else:
            made.append((len(rows[index]), [index]))
    return [batch for _, batch in sorted(made, key=lambda entry: -entry[0])]


def pack(rows: Sequence[Sequence[int]], at_most: Sequence[int] | None = None) -> Packed:
    """Return rows packed; those that begin alike must be neighbours.

    Args:
        rows: Ids.
        at_most: How many of its first tokens each row may share; default: all.
    """
    packed = Packed([], [], [], [])
    places: list[int] = []
    for number, (row, alike) in enumerate(zip(rows, _shared(rows, range(len(rows))), strict=True)):
        shared = alike if at_most is None else min(alike, at_most[number])
        begin = len(packed.ids)
        packed.ids.extend(row[shared:])
        packed.positions.extend(range(shared, len(row)))
        places = [*places[:shared], *range(begin, len(packed.ids))]
        packed.places.append(places)
        packed.own.append(len(row) - shared)
    return packed


def hidden_states(model: Any, packed: Packed) -> Any:
    """Return the last hidden states of packed rows, (tokens, width); call it within `attention_of`."""
    return model.base_model(**inputs(packed, model.device), use_cache=False).last_hidden_state[0]


def inputs(packed: Packed, device: Any) -> dict[str, Any]:
    """Return what a model under `attention_of` is called with to compute packed rows."""
    import torch

    rows = [(places, own) for places, own in zip(packed.places, packed.own, strict=True) if own]
    places = torch.tensor([place for places, _ in rows for place in places], dtype=torch.long, device=device)
    return {
        "input_ids": torch.tensor([packed.ids], device=device),
        "position_ids": torch.tensor([packed.positions], device=device),
        "packed_rows": (places, [(len(places), own) for places, own in rows]),
    }


@contextlib.contextmanager
def attention_of(model: Any) -> Iterator[None]:
    """Let a model read packed rows, and nothing else, for a while.

    Raises:
        EngineError: The model keeps its own attention, under which packed rows would see each other.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)
    former = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    if model.config._attn_implementation != ATTENTION:  # transformers only warns
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
        attention_mask: None; rows are kept apart by their places.
        packed_rows: Where the tokens of each row that adds any stand, one row after the other; and for each such row its
            tokens, and how many of them, the last ones, it adds.
        options: As transformers gives them.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    places, rows = packed_rows
    lengths = [length for length, _ in rows]
    states = [each.index_select(2, places).split(lengths, dim=2) for each in (query, key, value)]
    found = []
    for (length, own), *row in zip(rows, *states, strict=True):
        made, _ = sdpa_attention_forward(module, *row, attention_mask, **options)
        found.append(made[:, length - own :])
    return torch.cat(found, dim=1), None


def _shared(rows: Sequence[Sequence[int]], order: Sequence[int]) -> Iterator[int]:
    """Yield, for each row in the order given, how many tokens it begins with in common with the one before."""
    before: Sequence[int] = []
    for index in order:
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, rows[index], strict=False))
        yield sum(1 for _ in alike)
        before = rows[index]
