"""Computes rotary frequencies that depend on the length of a row, `dynamic` and `longrope`, row by row.

transformers chooses them once for a whole batch, by its longest row, and `dynamic` remembers the longest row so far: what a row
gets would depend on what else is in its batch, or was in an earlier one. Both are known upstream:
https://github.com/huggingface/transformers/issues/25104 and https://github.com/huggingface/transformers/pull/27033. Up to its
`window` such a model has one set of frequencies for all lengths, and is computed like any other.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Iterable, Mapping
from typing import Any

DYNAMIC, LONG = "dynamic", ("longrope", "su")
_computing = threading.Lock()
"""A module keeps its frequencies in itself, and batches are computed in several threads."""


def window(config: Mapping[str, Any]) -> int | None:
    """Return the tokens up to which a model's frequencies are the same for all lengths; None if they always are.

    Args:
        config: A checkpoint's configuration, as in its config.json or as transformers completes it.
    """
    text = config.get("text_config") or config
    found = [_window(rope, text) for rope in _ropes(text.get("rope_parameters") or text.get("rope_scaling") or {})]
    return min((tokens for tokens in found if tokens is not None), default=None)


def is_dynamic(config: Mapping[str, Any]) -> bool:
    """Return whether the frequencies change with every token beyond the window."""
    text = config.get("text_config") or config
    ropes = _ropes(text.get("rope_parameters") or text.get("rope_scaling") or {})
    return any(DYNAMIC in _type(rope) for rope in ropes)


def _ropes(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parameters of every kind of layer: some models have one entry for each."""
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    return nested or [parameters]


def _type(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _window(rope: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    most = config.get("max_position_embeddings")
    if DYNAMIC in _type(rope):
        return most
    if _type(rope) in LONG:
        return config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or most
    return None


def compute_by_row(model: Any) -> None:
    """Give every row of a model's batches the frequencies that it has alone; nothing for other kinds of frequencies."""
    tokens = window(model.config.to_dict())
    if tokens is None:
        return
    for module in model.modules():
        if hasattr(module, "rope_type") and hasattr(module, "original_max_seq_len"):
            module.equal_within = tokens
            module.forward = types.MethodType(_forward, module)
    model.base_model.register_forward_pre_hook(_own_positions, with_kwargs=True)


def _own_positions(module: Any, given: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Count positions in a padded batch by row: where padding counts too, a row seems as long as its batch is wide."""
    mask, cache = options.get("attention_mask"), options.get("past_key_values")
    fresh = cache is None or cache.get_seq_length() == 0
    if options.get("position_ids") is None and fresh and mask is not None and mask.ndim == 2:
        options = {**options, "position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
    return given, options


def _forward(self: Any, x: Any, position_ids: Any, *args: Any, **options: Any) -> Any:
    """Return cosines and sines, (rows, tokens, width), of each row's own length: its last position and one."""
    import torch

    if position_ids.dim() != 2 or len(position_ids) == 1:
        return _frequencies(self, x, position_ids, args, options)
    lengths = (position_ids.max(dim=1).values + 1).tolist()
    # lengths [5, 9, 5, 12] and a window of 8: one call for rows 0 and 2, whose frequencies do not depend on their length, one
    # for row 1 and one for row 3; the parts return to the rows' own places.
    found: list[Any] = [None] * len(lengths)
    for rows in _alike(lengths, self.equal_within):
        cosines, sines = _frequencies(self, x, position_ids[rows], args, options)
        for row, *values in zip(rows, cosines, sines, strict=True):
            found[row] = values
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def _alike(lengths: list[int], tokens: int) -> Iterable[list[int]]:
    """Return the rows whose frequencies are the same: those of one length, and of all lengths within the window."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(max(length, tokens), []).append(row)
    return groups.values()


def _frequencies(module: Any, x: Any, position_ids: Any, args: Any, options: Any) -> Any:
    """Return what the module's own class computes, as if these rows were the first that it sees."""
    with _computing:
        # Back to the state after loading. `dynamic` forgets the longest row so far; `longrope` gets the short frequencies
        # back, as a clone: transformers writes into `inv_freq` in place and would overwrite the original.
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name, value in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                module.register_buffer(name.replace("original_inv_freq", "inv_freq"), value.clone(), persistent=False)
        return type(module).forward(module, x, position_ids, *args, **options)
