"""Sampling engines behind one protocol: prompt ids in, completion ids out.

A new engine is one file with a class that has `generate`, and one line in `ENGINES`.
"""

from __future__ import annotations

from gshf_release.sampling.protocol import Completion, Decoding, Request, SamplingEngine
from gshf_release.sampling.transformers_engine import TransformersEngine

ENGINES: dict[str, type[TransformersEngine]] = {"transformers": TransformersEngine}

__all__ = ["ENGINES", "Completion", "Decoding", "Request", "SamplingEngine", "TransformersEngine"]
