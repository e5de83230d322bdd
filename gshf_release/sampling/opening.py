"""The engine of this process: opened once, used for every shard that samples from the same checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gshf_release.environments import OF_ENGINE
from gshf_release.profile import Profile
from gshf_release.run import stopwatch
from gshf_release.sampling import ENGINES
from gshf_release.sampling.protocol import SamplingEngine
from gshf_release.sampling.ray_engine import RayEngine

_kept: dict[tuple[str, str, int], SamplingEngine] = {}
"""At most one engine, by checkpoint, profile and the checkpoint's time of change."""


def open_engine(
    checkpoint: Path, profile: Profile, started: Callable[[float], None] = lambda seconds: None
) -> SamplingEngine:
    """Return the profile's engine on a checkpoint; `started(seconds)` is called if it was not open yet.

    An engine with an environment of its own, or with copies under Ray, has this process to itself (see `run/resident.py`) and
    takes long to start, so it is kept for the next shard; any other is opened anew, and its memory is free once the caller
    lets it go.

    Raises:
        EngineError: The engine is not in this environment, or cannot run the model.
        CheckpointError: The checkpoint cannot be read.
    """
    if profile.engine not in OF_ENGINE and profile.replicas == 1:
        return _opened(checkpoint, profile, started)
    key = (str(checkpoint.resolve()), profile.model_dump_json(), checkpoint.stat().st_mtime_ns)
    if key not in _kept:
        for former in list(_kept):
            _kept.pop(former).close()
        _kept[key] = _opened(checkpoint, profile, started)
    return _kept[key]


@stopwatch.part("loading")
def _opened(checkpoint: Path, profile: Profile, started: Callable[[float], None]) -> SamplingEngine:
    begun = time.perf_counter()
    engine = (RayEngine if profile.replicas > 1 else ENGINES[profile.engine])(checkpoint, profile)
    started(time.perf_counter() - begun)
    return engine
