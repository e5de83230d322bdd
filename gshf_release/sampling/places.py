"""The keys and values of the rows that are being decoded, in memory that is set aside once.

Rows are aligned at the right: every row's next token goes to the same column, so a step writes one column and reads one window,
whatever the rows' lengths. Columns before a row's first token hold old numbers that the mask hides.

    place 0   . . . p p p p a a a |          p prompt, a answer, | the column that is written next
    place 1   p p p p p p p p a a |
    place 2   . . . . . . p p p a |

A row that enters is copied to the left of that column; when one leaves, the last row takes its place, so that the rows in use
are always the first ones and nothing is computed for a free place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

SLACK = 64
"""Columns more than the longest row needs: the window moves back to the left once in so many steps."""


class Prompt(NamedTuple):
    """What the model keeps of a prompt: its keys and values, each (heads, tokens, width), layer by layer."""

    layers: list[tuple[Any, Any]]
    tokens: int


def replacements(count: int, leaving: Iterable[int]) -> list[tuple[int, int]]:
    """Return the moves `(from, to)` after which the rows that stay are the first ones."""
    gone = set(leaving)
    left = count - len(gone)
    staying = [place for place in range(left, count) if place not in gone]
    return list(zip(staying, sorted(place for place in gone if place < left), strict=True))


class Places:
    """The keys and values of up to `rows` rows of up to `columns - 1` tokens.

    Args:
        rows: Rows at most.
        columns: Tokens of the longest row, its answer included, and `SLACK`.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.lengths: list[int] = []
        """Tokens that are kept of each row."""
        self.end = 0
        """The column that is written next."""
        self.cache: Any = None
        """What the model takes as `past_key_values`."""

    @property
    def free(self) -> int:
        """Rows that may still enter."""
        return self.rows - len(self.lengths)

    @property
    def width(self) -> int:
        """Columns that the longest row takes."""
        return max(self.lengths, default=0)

    def enter(self, prompt: Prompt, count: int) -> None:
        """Give `count` free places to responses to one prompt."""
        if self.cache is None:
            self.cache = Cache(layers=[_Layer(self, keys, values) for keys, values in prompt.layers])
        first = len(self.lengths)
        if self.end < prompt.tokens:
            self._slide(prompt.tokens)
        rows, columns = slice(first, first + count), slice(self.end - prompt.tokens, self.end)
        for layer, (keys, values) in zip(self.cache.layers, prompt.layers, strict=True):
            layer.all_keys[rows, :, columns] = keys
            layer.all_values[rows, :, columns] = values
        self.lengths += [prompt.tokens] * count

    def leave(self, moves: Sequence[tuple[int, int]], left: int) -> None:
        """Free all places but the first `left`, after the moves of `replacements`."""
        sources, targets = [source for source, _ in moves], [target for _, target in moves]
        if moves:
            window = slice(self.end - self.width, self.end)
            for layer in self.cache.layers:
                for store in (layer.all_keys, layer.all_values):
                    store[targets, :, window] = store[sources, :, window]
        for source, target in moves:
            self.lengths[target] = self.lengths[source]
        del self.lengths[left:]

    def mask(self) -> Any:
        """Return what a step attends to, (rows in use, width + 1): every row's own tokens and the new one."""
        columns = torch.arange(self.width + 1)
        return (columns >= (self.width - torch.tensor(self.lengths)).unsqueeze(1)).long()

    def prepare(self) -> None:
        """Make sure that there is a column to write."""
        if self.end == self.columns:
            self._slide(self.width)

    def advance(self) -> None:
        """Count the token of every row that the model has just written."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def resize(self, rows: int, columns: int) -> None:
        """Change to more and shorter rows, or the other way round; the rows in use must fit."""
        self.rows, self.columns = rows, columns
        end = self.width
        for layer in self.cache.layers if self.cache else []:
            layer.resize(slice(self.end - end, self.end))
        self.end = end

    def _slide(self, end: int) -> None:
        """Move the rows in use so that `end` is the next column."""
        width = self.width
        if width:
            for layer in self.cache.layers:
                for store in (layer.all_keys, layer.all_values):
                    used = store[: len(self.lengths)]
                    used[:, :, end - width : end] = used[:, :, self.end - width : self.end].clone()
        self.end = end


class _Layer(CacheLayerMixin):
    """One layer's part of `Places`, as transformers wants it.

    All tokens are kept also where the layer attends to a sliding window: transformers' mask then hides the older ones.
    """

    is_sliding = False

    def __init__(self, places: Places, keys: Any, values: Any) -> None:
        super().__init__()
        self.places = places
        self.all_keys, self.all_values = self._zeros(keys), self._zeros(values)
        self.is_initialized = True

    def _zeros(self, like: Any) -> Any:
        """Return a store for (heads, tokens, width): zeros, because a NaN that the mask hides would still be one."""
        return like.new_zeros(self.places.rows, like.shape[-3], self.places.columns, like.shape[-1])

    def resize(self, window: slice) -> None:
        count, columns = len(self.places.lengths), window.stop - window.start
        for name in ("all_keys", "all_values"):
            former = getattr(self, name)
            store = self._zeros(former)
            store[:count, :, :columns] = former[:count, :, window]
            setattr(self, name, store)

    def update(self, key_states: Any, value_states: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Write the new token's column and return the window, both (rows in use, heads, columns, width)."""
        rows, end = len(self.places.lengths), self.places.end
        window = slice(end - self.places.width, end + 1)
        self.all_keys[:rows, :, end : end + 1] = key_states
        self.all_values[:rows, :, end : end + 1] = value_states
        return self.all_keys[:rows, :, window], self.all_values[:rows, :, window]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.places.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.places.width

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Everything is set aside at the start."""
