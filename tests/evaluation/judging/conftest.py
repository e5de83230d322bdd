"""A judge behind the replay server, with its key in the environment and pauses of a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gshf_release.evaluation.judging import batch, judges
from gshf_release.evaluation.judging.batch import judge_in_batches
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.serving import openai_client
from tests.servers.judge import KEY, JudgeServer, by_rule


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """Return a judge that answers by its rule."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(batch, "FIRST_POLL_SECONDS", 0.01)
    with JudgeServer(by_rule) as started:
        yield started


@pytest.fixture
def settings(server: JudgeServer) -> Callable[..., JudgeSettings]:
    """Return a function that makes the settings of a stand-in judge at the server."""

    def make(kind: str = "mt-bench-single", *overrides: str) -> JudgeSettings:
        base = (f"endpoint.address={server.address}", "model=some-judge", "endpoint.timeout_seconds=120")
        return judges.load(f"openai-compatible-{kind}", (*base, *overrides))

    return make


@pytest.fixture
def session(settings: Callable[..., JudgeSettings], tmp_path: Path) -> Callable[..., JudgeSession]:
    """Return a function that makes a session; all share one cache."""

    def make(kind: str = "mt-bench-single", *overrides: str, batch: bool = False, **options: Any) -> JudgeSession:
        in_batches = judge_in_batches if batch else None
        return JudgeSession(settings(kind, *overrides), tmp_path / "cache", batch=in_batches, **options)

    return make
