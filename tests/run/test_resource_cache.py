"""What a process opens for a stage stays for the stage's shards, and goes with the stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gshf_release.run.context import StageContext
from gshf_release.run.execution import execute
from gshf_release.run.resource_cache import ResourceCache
from tests.run.plans import PROFILES, RECIPE, begin
from tests.run.work import made, stage, write

LOG: list[str] = []


class Model:
    """Notes when it is opened and closed."""

    def __init__(self) -> None:
        LOG.append("open")

    def close(self) -> None:
        LOG.append("close")


def use_model(context: StageContext) -> None:
    """Open a model and use it."""
    context.resources.get(context.run.path, Model)
    LOG.append(context.task.label)
    write(context)


def fail_with_model(context: StageContext) -> None:
    """Fail with a model open."""
    context.resources.get(context.run.path, Model)
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def test_the_shards_of_a_stage_share_what_the_first_one_opened(tmp_path: Path) -> None:
    used = [replace(stage(name, shards=2), work=f"{__name__}:use_model") for name in "ab"]
    execute(used, begin(tmp_path / "run"), RECIPE, PROFILES["here"])
    assert LOG == ["open", "a 1/2", "a 2/2", "close", "open", "b 1/2", "b 2/2", "close"]


def test_nothing_stays_open_when_the_last_shard_was_finished_earlier(tmp_path: Path) -> None:
    stages = [replace(stage("a", shards=2), work=f"{__name__}:use_model"), stage("b", "a")]
    run = begin(tmp_path / "run")
    execute(stages, run, RECIPE, PROFILES["here"])
    LOG.clear()
    (run.path / "a" / "shard-000" / "out.json").unlink()
    execute(stages, run, RECIPE, PROFILES["here"])
    assert LOG == ["open", "a 1/2", "close"]
    assert made(run)[-1] == "a 1/2"


def test_a_failure_closes_what_was_open(tmp_path: Path) -> None:
    failing = [replace(stage("a", shards=2), work=f"{__name__}:fail_with_model")]
    with pytest.raises(ZeroDivisionError):
        execute(failing, begin(tmp_path / "run"), RECIPE, PROFILES["here"])
    assert LOG == ["open", "close"]


def test_another_checkpoint_closes_the_first(tmp_path: Path) -> None:
    opened = ResourceCache()
    first = opened.get(tmp_path / "one", Model)
    assert opened.get(tmp_path / "one", Model) is first
    assert opened.get(tmp_path / "two", Model) is not first
    assert LOG == ["open", "close", "open"]
