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
