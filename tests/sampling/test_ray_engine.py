"""Copies of the transformers engine under a local Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import EngineError
from gshf_release.profile import Profile
from gshf_release.run.context import silent
from gshf_release.sampling import TransformersEngine
from gshf_release.sampling.opening import open_engine
from gshf_release.sampling.protocol import Decoding, Request
from gshf_release.sampling.ray_engine import RayEngine, cpus_each, in_pieces
from tests.sampling.conformance import CONTEXT, PROMPTS, requests

PROFILE = Profile(inference_precision="fp32", threads=1, device="cpu", replicas=2, sampling_batch=4)
INSTALLED = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not INSTALLED, reason="Ray is not installed: pip install 'gshf-release[ray]'")


@given(total=st.integers(2, 500), replicas=st.integers(1, 200))
def test_a_cpu_is_always_left_for_what_moves_the_data(total: int, replicas: int) -> None:
    each = cpus_each(total, replicas)
    assert 0 < each <= 1
    assert replicas * each <= total - 1 + 1e-9


def test_a_cluster_of_one_cpu_is_refused() -> None:
    with pytest.raises(EngineError, match="has 1 CPU; one is needed beside the replicas"):
        cpus_each(1, 2)


@given(count=st.integers(0, 60), batch=st.integers(1, 9), replicas=st.integers(1, 5))
def test_pieces_hold_every_request_once_and_leave_no_replica_idle(count: int, batch: int, replicas: int) -> None:
    pieces = in_pieces(count, batch, replicas)
    assert [position for piece in pieces for position in piece] == list(range(count))
    assert all(1 <= len(piece) <= batch for piece in pieces)
    assert len(pieces) >= min(count, replicas) / 2


@pytest.mark.skipif(INSTALLED, reason="Ray is installed")
def test_without_ray_the_message_says_how_to_get_it(ending_folder: Path) -> None:
    with pytest.raises(EngineError, match="Ray is not installed"):
        open_engine(ending_folder, PROFILE)


@pytest.fixture(scope="module")
def replicated(ending_folder: Path) -> Iterator[RayEngine]:
    engine = RayEngine(ending_folder, PROFILE)
    yield engine
    engine.close()


@needs_ray
@pytest.mark.slow
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


@needs_ray
@pytest.mark.slow
def test_the_pieces_of_a_killed_worker_are_sampled_again(replicated: RayEngine, ending_folder: Path) -> None:
    wanted = requests(200, limit=100)
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            killed.extend(workers()[:1])
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    found = replicated.generate(wanted, silent)
    thread.join()
    assert killed
    assert found == TransformersEngine.open(ending_folder, PROFILE).generate(wanted, silent)


@needs_ray
@pytest.mark.slow
def test_what_an_engine_refuses_is_one_line(replicated: RayEngine) -> None:
    assert replicated.generate([], silent) == []
    with pytest.raises(EngineError, match="needs 261 tokens; the model's context is 256"):
        replicated.generate([Request(PROMPTS[0], Decoding(1.0, CONTEXT), 0)], silent)


def workers() -> list[int]:
    """Return the processes below this one that hold an engine; Ray gives them their names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            named = b"MapWorker" in path.read_bytes()
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
