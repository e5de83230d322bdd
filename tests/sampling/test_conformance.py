"""The transformers engine against the suite of all engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.sampling import TransformersEngine
from tests.sampling.conformance import EngineConformance


class TestTransformers(EngineConformance):
    @pytest.fixture(scope="class")
    def engine(self, ending_folder: Path) -> TransformersEngine:
        return TransformersEngine(ending_folder, precision="fp32", device="cpu", batch=16)


class TestTransformersBF16(EngineConformance):
    """As policies are sampled; the last bits of a logit are coarse, and neighbours in a batch may flip a draw."""

    equal_alone_of_eight = 6
    tolerance = 0.1
    precision = "bf16"

    @pytest.fixture(scope="class")
    def engine(self, ending_folder: Path) -> TransformersEngine:
        return TransformersEngine(ending_folder, precision="bf16", device="cpu", batch=16)
