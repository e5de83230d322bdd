"""Implements the preallocated KV cache of the sequences that are being decoded.

Slots are aligned at the right: the next token of every sequence goes to the same column, so a decode step writes one column and
reads one window, whatever the lengths. Columns before a sequence's first token hold stale values that the mask hides.

                                 end
    slot 0   . . . p p p p a a a |          p prompt, a answer, | the column that is written next
    slot 1   p p p p p p p p a a |          lengths = [7, 10, 4], width = 10
    slot 2   . . . . . . p p p a |

A prefilled prompt is copied to the left of that column. When a sequence ends, the last one moves into its slot, so that the
slots in use are always the first ones and a decode step computes nothing for a free slot.

Invariant between two decode steps: slot `s` holds its tokens in the columns `end - lengths[s] : end`, and
`width <= end <= columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

SLACK = 64
"""Columns beyond the longest sequence: the window is copied back to the left at most once in so many decode steps."""


class PrefilledPrompt(NamedTuple):
    """The KV cache of one prompt: keys and values, each (heads, tokens, head width), layer by layer."""

    layers: list[tuple[Any, Any]]
    tokens: int


def compaction_moves(count: int, ended: Iterable[int]) -> list[tuple[int, int]]:
    """Return the moves `(from, to)` after which the sequences that go on occupy the first slots.

    Only sequences behind the new end move, and only into the slots of ended ones before it:

        slots 0 1 2 3 4, ended {1, 3}    a . c . e    ->    a e c        moves [(4, 1)]

    So no slot is both a source and a target, and the moves may be made in any order or all at once.
    """
    gone = set(ended)
    left = count - len(gone)
    staying = [slot for slot in range(left, count) if slot not in gone]
    return list(zip(staying, sorted(slot for slot in gone if slot < left), strict=True))


class KVCache:
    """Holds the keys and values of up to `slots` sequences of up to `columns - 1` tokens.

    Args:
        slots: Sequences at most.
        columns: Tokens of the longest sequence, its answer included, and `SLACK`.
    """

    def __init__(self, slots: int, columns: int) -> None:
        self.slots, self.columns = slots, columns
        self.lengths: list[int] = []
        """Tokens in the cache, by slot in use."""
        self.end = 0
        """The column that the next decode step writes."""
        self.past_key_values: Any = None
        """The same memory as transformers takes it; None until the first prompt tells the shapes."""

    @property
    def free(self) -> int:
        """Slots without a sequence."""
        return self.slots - len(self.lengths)

    @property
    def width(self) -> int:
        """Columns of the window: the tokens of the longest sequence."""
        return max(self.lengths, default=0)

    def insert(self, prompt: PrefilledPrompt, count: int) -> None:
        """Copy a prefilled prompt into `count` free slots, one for each response to it."""
        if self.past_key_values is None:
            self.past_key_values = Cache(layers=[_KVCacheLayer(self, keys, values) for keys, values in prompt.layers])
        first = len(self.lengths)
        if self.end < prompt.tokens:  # no room to the left of the column that is written next
            self._slide(prompt.tokens)
        slots, columns = slice(first, first + count), slice(self.end - prompt.tokens, self.end)
        for layer, (keys, values) in zip(self.past_key_values.layers, prompt.layers, strict=True):
            # Broadcast: (heads, tokens, head width) into (count, heads, tokens, head width). Keys were rotated by their
            # positions in the prompt before they were cached, so the column they stand in means nothing to them.
            layer.all_keys[slots, :, columns] = keys
            layer.all_values[slots, :, columns] = values
        self.lengths += [prompt.tokens] * count

    def remove(self, moves: Sequence[tuple[int, int]], left: int) -> None:
        """Free all slots but the first `left`, after the moves of `compaction_moves`."""
        sources, targets = [source for source, _ in moves], [target for _, target in moves]
        if moves:
            # The whole window, as wide as the longest sequence: one indexed copy for sources of all lengths.
            window = slice(self.end - self.width, self.end)
            for layer in self.past_key_values.layers:
                for store in (layer.all_keys, layer.all_values):
                    store[targets, :, window] = store[sources, :, window]
        for source, target in moves:
            self.lengths[target] = self.lengths[source]
        del self.lengths[left:]

    def mask(self) -> Any:
        """Return the attention mask of a decode step, (slots in use, width + 1): a sequence's own tokens and the new one.

        lengths [2, 3], width 3:   0 1 1 1
                                   1 1 1 1
        """
        columns = torch.arange(self.width + 1)
        return (columns >= (self.width - torch.tensor(self.lengths)).unsqueeze(1)).long()

    def prepare(self) -> None:
        """Make sure that there is a column for the next decode step to write."""
        if self.end == self.columns:
            self._slide(self.width)

    def advance(self) -> None:
        """Count the token of every sequence that the model has just written."""
        # Not in `_KVCacheLayer.update`: within one call of the model every layer must write the same column.
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def resize(self, slots: int, columns: int) -> None:
        """Change to more and shorter slots, or the other way round; the sequences in use must fit."""
        self.slots, self.columns = slots, columns
        end = self.width
        for layer in self.past_key_values.layers if self.past_key_values else []:
            layer.resize(slice(self.end - end, self.end))
        self.end = end

    def _slide(self, end: int) -> None:
        """Move the window so that `end` is the column that is written next: left to go on, right for a longer prompt."""
        width = self.width
        if width:
            for layer in self.past_key_values.layers:
                for store in (layer.all_keys, layer.all_values):
                    used = store[: len(self.lengths)]
                    # The two windows may overlap, and torch refuses to copy between tensors that share memory.
                    used[:, :, end - width : end] = used[:, :, self.end - width : self.end].clone()
        self.end = end


class _KVCacheLayer(CacheLayerMixin):
    """Holds one layer of a `KVCache`, with the interface that transformers expects.

    A layer that attends to a sliding window keeps all tokens too: transformers' mask hides the older ones. That mask counts
    columns, and in slots aligned at the right two tokens are as many columns apart as positions.
    """

    is_sliding = False

    def __init__(self, kv_cache: KVCache, keys: Any, values: Any) -> None:
        super().__init__()
        self.kv_cache = kv_cache
        self.all_keys, self.all_values = self._zeros(keys), self._zeros(values)
        self.is_initialized = True

    def _zeros(self, like: Any) -> Any:
        """Return memory of (slots, heads, columns, head width) for keys or values of (..., heads, tokens, head width)."""
        # Not `new_empty`: a masked column has weight 0, and 0 times a NaN of uninitialised memory is NaN.
        return like.new_zeros(self.kv_cache.slots, like.shape[-3], self.kv_cache.columns, like.shape[-1])

    def resize(self, window: slice) -> None:
        count, columns = len(self.kv_cache.lengths), window.stop - window.start
        # One of the two after the other, so that only one is held twice.
        for name in ("all_keys", "all_values"):
            former = getattr(self, name)
            store = self._zeros(former)
            store[:count, :, :columns] = former[:count, :, window]
            setattr(self, name, store)

    def update(self, key_states: Any, value_states: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Write the new token's column and return the window, both (slots in use, heads, columns, head width)."""
        slots, end = len(self.kv_cache.lengths), self.kv_cache.end
        # Slices, not index tensors: what attention reads is a view, and no decode step copies the cache.
        window = slice(end - self.kv_cache.width, end + 1)
        self.all_keys[:slots, :, end : end + 1] = key_states
        self.all_values[:slots, :, end : end + 1] = value_states
        return self.all_keys[:slots, :, window], self.all_values[:slots, :, window]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        # Keys and the offset of the first; with `get_seq_length` it places the new token in the last column of the window.
        return self.kv_cache.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.kv_cache.width

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Do nothing: all memory is allocated at the start."""
