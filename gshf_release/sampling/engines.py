"""Open the sampling engine that a profile names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gshf_release.recipe.profile import Profile
from gshf_release.run import stopwatch
from gshf_release.sampling import ENGINES
from gshf_release.sampling.protocol import SamplingEngine
from gshf_release.sampling.ray_engine import RayEngine


@stopwatch.part("loading")
def open_engine(
    checkpoint: Path, profile: Profile, started: Callable[[float], None] = lambda seconds: None
) -> SamplingEngine:
    """Return the profile's engine on a checkpoint, having called `started(seconds)`.

    Raises:
        EngineError: The engine is not in this environment, or cannot run the model.
        CheckpointError: The checkpoint cannot be read.
    """
    begun = time.perf_counter()
    engine = (RayEngine if profile.replicas > 1 else ENGINES[profile.engine])(checkpoint, profile)
    started(time.perf_counter() - begun)
    return engine
