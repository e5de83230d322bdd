"""Copies of the transformers engine under a local Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Sample
from gshf_release.errors import EngineError
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.context import silent
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Task
from gshf_release.sampling import TransformersEngine
from gshf_release.sampling.protocol import Decoding, Request
from gshf_release.sampling.ray_engine import RayEngine
from tests.sampling.conformance import CONTEXT, PROMPTS, EngineConformance, requests

pytestmark = pytest.mark.engines
PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=2, sampling_batch=4)


@pytest.fixture(scope="module")
def replicated(ending_folder: Path) -> Iterator[RayEngine]:
    engine = RayEngine(ending_folder, PROFILE)
    yield engine
    engine.close()


class TestRay(EngineConformance):
    """The suite on two copies, which compute with the weights rounded to BF16 in FP32, as a profile has it."""

    precision = "rounded"

    @pytest.fixture(scope="class")
    def engine(self, replicated: RayEngine) -> RayEngine:
        return replicated


def test_two_replicas_give_the_responses_of_one_engine(replicated: RayEngine, ending_folder: Path) -> None:
    import ray

    alone = TransformersEngine.open(ending_folder, PROFILE)
    heard: list[int] = []
    found = replicated.generate(requests(24), lambda done, total, unit: heard.append(done))
    assert found == alone.generate(requests(24), silent)
    assert heard[-1] == 24
    assert heard == sorted(heard)
    assert replicated.stops == alone.stops
    assert replicated.context_tokens == alone.context_tokens
    assert ray.cluster_resources()["CPU"] > 2 * replicated._cpus, "not all CPUs are held"


def test_the_pieces_of_a_killed_worker_are_sampled_again(replicated: RayEngine, ending_folder: Path) -> None:
    wanted = requests(200, limit=100)
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            killed.extend(workers()[:1])
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    found = replicated.generate(wanted, silent)
    thread.join()
    assert killed
    assert found == TransformersEngine.open(ending_folder, PROFILE).generate(wanted, silent)


def test_what_an_engine_refuses_is_one_line(replicated: RayEngine) -> None:
    assert replicated.generate([], silent) == []
    with pytest.raises(EngineError, match="needs 261 tokens; the model's context is 256"):
        replicated.generate([Request(PROMPTS[0], Decoding(1.0, CONTEXT), 0)], silent)


def test_a_run_starts_its_replicas_once_for_all_shards_of_a_stage(tiny_recipe: Recipe, tmp_path: Path) -> None:
    stages = pipeline.build(tiny_recipe).stages
    samples = next(stage for stage in stages if stage.name == "iteration-1/samples")
    assert samples.shards == 2
    found = []
    for replicas in (1, 2):
        profile = PROFILE.model_copy(update={"replicas": replicas})
        run = RunDirectory.create(tmp_path / str(replicas), tiny_recipe, profile)
        execute(stages, run, tiny_recipe, profile, goal=stages[: stages.index(samples) + 1])
        found.append(Sample.read(*(run.folder(Task(samples, shard)) / "samples.parquet" for shard in range(2))))
    assert found[0] == found[1]
    started = [entry["stage"] for entry in run.journal() if entry["event"] == "engine started"]
    assert sum(stage.startswith(samples.name) for stage in started) == 1


def workers() -> list[int]:
    """Return the processes below this one that hold an engine; Ray gives them their names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            named = b"ray::Worker" in path.read_bytes()
        except OSError:
            continue
        if named and os.getpid() in ancestors(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found


def ancestors(process: int) -> list[int]:
    """Return the processes above one."""
    found = []
    while process > 1:
        try:
            text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        except OSError:
            break
        process = int(text.rpartition(")")[2].split()[1])
        found.append(process)
    return found
