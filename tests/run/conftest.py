"""What the tests of the run directory share."""

from __future__ import annotations

import pytest

from gshf_release.run import persistent_worker
from tests.conftest import REPOSITORY
from tests.run.plans import without_torch


@pytest.fixture(autouse=True)
def light_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers start fast and find the works of the tests."""
    monkeypatch.setattr(persistent_worker, "command_here", without_torch)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
