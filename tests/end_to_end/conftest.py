"""Fixtures of the tests of judged benchmarks: the tiny model, benchmarks of our own, a judge over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gshf_release.run.directory import RunDirectory
from tests.conftest import Outcome
from tests.end_to_end.judged import EXACT, KEY, Command, prefers_longer
from tests.evaluation import own
from tests.servers.chat import ChatServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    monkeypatch.setenv("OWN_JUDGE_KEY", KEY)
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    with ChatServer(prefers_longer, key=KEY) as started:
        yield started


@pytest.fixture
def files(tmp_path: Path, tiny_folder: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "exact.yaml").write_text(EXACT, encoding="utf-8")
    own.alpaca_benchmark(folder)
    own.mt_benchmark(folder)
    return folder


@pytest.fixture
def evaluate(command: Command, files: Path, server: ChatServer, tiny_folder: Path, tmp_path: Path) -> Command:
    """Evaluate the tiny checkpoint in a run of its own."""

    def call(*options: object, run: Path | None = None, kind: str = "alpaca_eval_2", **judge: Any) -> Outcome:
        judged_by = own.judge(files, kind, server.address, **judge)
        benchmark = files / ("own-alpaca.yaml" if kind == "alpaca_eval_2" else "own-mt.yaml")
        place = ["--run", run or tmp_path / "run", "--profile", files / "exact.yaml"]
        return command("eval", tiny_folder / "tiny", "--benchmark", benchmark, "--judge", judged_by, *place, *options)

    return call


@pytest.fixture
def trained(finished: RunDirectory, tmp_path: Path, files: Path) -> Path:
    """Return a copy of the trained and evaluated tiny run."""
    shutil.copytree(finished.path, tmp_path / "trained")
    return tmp_path / "trained"
