"""Sampling engines behind one protocol: prompt ids in, completion ids out.

A new engine is one file with a class that has `open`, `generate` and `close`, and one line in `ENGINES`. One that lives in an
environment of its own has a line in `environments.OF_ENGINE` too; stages that sample then run there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gshf_release.recipe.profile import Profile
from gshf_release.sampling.openai_engine import OpenAIEngine
from gshf_release.sampling.protocol import Completion, Decoding, Request, SamplingEngine
from gshf_release.sampling.transformers_engine import TransformersEngine
from gshf_release.sampling.vllm_engine import VllmEngine

ENGINES: dict[str, Callable[[Path, Profile], SamplingEngine]] = {
    "transformers": TransformersEngine.open,
    "vllm": VllmEngine.open,
    "openai": OpenAIEngine.open,
}

__all__ = [
    "ENGINES",
    "Completion",
    "Decoding",
    "OpenAIEngine",
    "Request",
    "SamplingEngine",
    "TransformersEngine",
    "VllmEngine",
]
