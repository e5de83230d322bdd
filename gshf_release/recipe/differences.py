"""Compare two recipes key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(then: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Return `{dotted key: (then, now)}` of every value that differs in two documents."""
    if not (isinstance(then, Mapping) and isinstance(now, Mapping)):
        return {} if then == now else {key: (then, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*then, *now]):
        found |= differences(then.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    return found
