"""Ray clusters without room for the replicas, and workers lost again and again: each is one line, never a silent wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gshf_release.errors import EngineError
from gshf_release.recipe.profile import Profile, Vllm
from gshf_release.run.context import silent
from gshf_release.sampling import ray_engine
from gshf_release.sampling.ray_engine import RayEngine, gpus_each
from tests.engines.test_ray import workers
from tests.sampling.conformance import requests

pytestmark = pytest.mark.engines
PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=1, sampling_batch=4)
FOUR_LOSSES = r"^Sampling under Ray failed: a worker was lost 4 times; the last time: .{10,200}$"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function that starts Ray on this machine with so many GPUs, none of which anything uses."""
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def start(gpus: int) -> None:
        ray.init(address="local", num_cpus=3, num_gpus=gpus, include_dashboard=False, log_to_driver=False)

    yield start
    ray.shutdown()


def test_more_gpus_than_the_cluster_has_are_refused_at_once(
    cluster: Callable[[int], None], ending_folder: Path
) -> None:
    cluster(4)
    profile = PROFILE.model_copy(update={"replicas": 3, "vllm": Vllm(tensor_parallel=2)})
    with pytest.raises(EngineError) as caught:
        RayEngine(ending_folder, profile)
    assert str(caught.value) == (
        "replicas: 3 with vllm.tensor_parallel: 2 needs 6 GPUs; the Ray cluster has 4, at most 4 on a machine, "
        "which is room for 2. Set replicas or vllm.tensor_parallel in the profile lower, or add machines to the cluster."
    )


def test_a_replica_that_is_larger_than_every_machine_is_refused_at_once(
    ending_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    machine = {"num_cpus": 2, "num_gpus": 2}
    cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
    try:
        cluster.add_node(**machine)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        profile = PROFILE.model_copy(update={"vllm": Vllm(tensor_parallel=4)})
        with pytest.raises(
            EngineError, match=r"needs 4 GPUs; the Ray cluster has 4, at most 2 on a machine, .* room for 0"
        ):
            RayEngine(ending_folder, profile)
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize(
    ("machines", "replicas", "wanted", "each"),
    [([0.0, 0.0], 8, 4, 0), ([8.0], 8, 1, 1), ([8.0, 8.0], 4, 4, 4), ([0.0, 3.0, 3.0], 2, 2, 2)],
)
def test_replicas_that_fit_take_their_gpus(machines: list[float], replicas: int, wanted: int, each: int) -> None:
    assert gpus_each(machines, replicas, wanted) == each


def test_replicas_that_fit_by_number_but_not_by_machine_are_refused() -> None:
    with pytest.raises(
        EngineError, match="needs 6 GPUs; the Ray cluster has 6, at most 3 on a machine, which is room for 2"
    ):
        gpus_each([3.0, 3.0], 3, 2)


def test_a_cluster_that_others_fill_is_one_line(
    cluster: Callable[[int], None], ending_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 3.0)
    cluster(0)
    other = ray.remote(Other).options(num_cpus=3).remote()
    ray.get(other.__ray_ready__.remote())
    engine = RayEngine(ending_folder, PROFILE)
    with pytest.raises(
        EngineError, match=r"^The Ray cluster has had no room for a replica for 0\.05 minutes; others may"
    ):
        engine.generate(requests(4), silent)
    ray.kill(other)
    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 120.0)
    assert len(engine.generate(requests(4), silent)) == 4, "as soon as there is room"
    engine.close()


def test_an_engine_that_takes_long_to_open_has_its_place(
    cluster: Callable[[int], None], ending_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    cluster(0)
    engine = RayEngine(ending_folder, PROFILE)
    ray.get(engine._replicas[0].placed)
    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 0.0)
    assert len(engine.generate(requests(4), silent)) == 4
    engine.close()


def test_a_worker_that_is_lost_four_times_is_one_line(cluster: Callable[[int], None], ending_folder: Path) -> None:
    cluster(0)
    engine = RayEngine(ending_folder, PROFILE)
    killed: set[int] = set()
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.05):
            for process in workers():
                if process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.add(process)

    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        with pytest.raises(EngineError, match=FOUR_LOSSES):
            engine.generate(requests(4), silent)
    finally:
        over.set()
        thread.join()
        engine.close()
    assert len(killed) == 4


def test_a_named_cluster_that_does_not_answer_is_not_replaced_by_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(EngineError, match=r"^The Ray cluster at RAY_ADDRESS=head:6379 does not answer\. Start it, or"):
        ray_engine._reach(Deaf())


class Deaf:
    """Ray where nobody answers; the real one tries for minutes before it says so."""

    def init(self, *, address: str, **settings: object) -> None:
        """Fail as Ray does."""
        assert address == "auto"
        raise ConnectionError


class Other:
    """Somebody else's work."""
