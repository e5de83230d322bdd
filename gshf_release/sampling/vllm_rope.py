"""Rotary frequencies of vLLM and of transformers, where they are not the same.

vLLM chooses them once for all rows: of `longrope` the long ones if the longest row that it could read is longer than the
original window, and of `dynamic` those of the longest row in every case. Policies are scored and trained with transformers'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gshf_release.errors import EngineError
from gshf_release.models import rope


def rope_limit(checkpoint: Path) -> int | None:
    """Return the longest row that vLLM may be able to read of a checkpoint, None for any.

    Raises:
        EngineError: No limit makes its frequencies those of transformers.
    """
    config = _config(checkpoint)
    if rope.is_dynamic(config):
        raise EngineError(
            f"{checkpoint.name} has the rotary frequencies `dynamic`, which vLLM computes otherwise than transformers.",
            hint="Set engine: transformers in the profile.",
        )
    return rope.window(config)


def require_equal_frequencies(checkpoint: Path, server: str, longest: int | None) -> None:
    """Refuse a server whose frequencies may not be those of transformers.

    Raises:
        EngineError: As `rope_limit`; or the server reads longer rows than the original window.
    """
    limit = rope_limit(checkpoint)
    if limit is not None and (longest is None or longest > limit):
        raise EngineError(
            f"{server} may read {longest or 'any number of'} tokens and so uses the rotary frequencies of long rows;"
            f" {checkpoint.name} was trained for others up to {limit} tokens.",
            hint=f"Start it with --max-model-len {limit}.",
        )


def _config(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
