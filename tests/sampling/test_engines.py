"""Which engine a profile gets, and how long it stays open. vLLM itself is tried by `make test-engines`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gshf_release import sampling
from gshf_release.environments import OF_ENGINE
from gshf_release.errors import EngineError
from gshf_release.recipe.profile import Profile, Vllm
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.resource_cache import ResourceCache
from gshf_release.run.stage import Stage, Task
from gshf_release.sampling import ENGINES, VllmEngine
from gshf_release.sampling.protocol import Completion, Progress, Request
from gshf_release.sampling.stage import engine_of
from gshf_release.sampling.vllm_engine import _variables
from tests.run.plans import RECIPE


class Noted:
    """An engine that notes what happens to it."""

    stops = (2,)

    def __init__(self, log: list[str], checkpoint: Path) -> None:
        self.log, self.name = log, checkpoint.name
        log.append(f"open {self.name}")

    def generate(self, requests: Sequence[Request], progress: Progress) -> list[Completion]:
        return []

    def close(self) -> None:
        self.log.append(f"close {self.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let noted engines take the places of the real ones, and return their notes."""
    notes: list[str] = []
    for name in ENGINES:
        monkeypatch.setitem(sampling.ENGINES, name, lambda checkpoint, profile: Noted(notes, checkpoint))
    return notes


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def test_an_engine_opens_once_for_the_shards_of_a_stage(log: list[str], checkpoints: tuple[Path, Path]) -> None:
    one, two = checkpoints
    run, resources = RunDirectory.create(checkpoints[0].parent / "run", RECIPE, Profile()), ResourceCache()
    for name, checkpoint in [("a", one), ("a", one), ("b", two), ("b", two), ("c", two)]:
        resources.begin(name)
        engine_of(StageContext(run, RECIPE, Profile(), Task(Stage(name, "work")), resources=resources), checkpoint)
    resources.close()
    assert log == ["open one", "close one", "open two", "close two", "open two", "close two"]
    assert [entry["stage"] for entry in run.journal()] == ["a", "b", "c"], "the journal hears of every start"


def test_every_engine_with_an_environment_is_an_engine() -> None:
    assert set(OF_ENGINE) <= set(ENGINES)


def test_outside_its_environment_vllm_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Run: gshf-release setup vllm"):
        VllmEngine.open(tmp_path, Profile(engine="vllm"))


def test_vllm_refuses_fp32_because_it_would_sample_unrounded_weights(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="inference_precision to bf16 or auto"):
        VllmEngine.open(tmp_path, Profile(engine="vllm", inference_precision="fp32"))


def test_vllm_gets_one_thread_on_each_core_and_sends_no_statistics() -> None:
    variables = _variables([0, 3], Vllm(cpu_cache_gb=4))
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "0,3"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"
