"""Copies of an engine on a Ray cluster of two machines, one of which is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gshf_release.run.context import silent
from gshf_release.sampling import Completion, TransformersEngine
from tests.conftest import REPOSITORY
from tests.engines.sample_on_cluster import PROFILE, REQUESTS
from tests.run.work import wait
from tests.servers.machines import Machines, lacking

pytestmark = pytest.mark.engines
LACKING = lacking() or (
    "" if importlib.util.find_spec("ray") else "Ray is not installed: pip install 'gshf-release[ray]'"
)
NAMES = ("first", "second")
PORT = 6379
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Machines]:
    """Return two machines with two CPUs each; the first holds Ray's head, and the path of its sockets has to be short."""
    if LACKING:
        pytest.skip(f"no Ray cluster of two machines here: {LACKING}")
    with tempfile.TemporaryDirectory(prefix="ray") as short, Machines(tmp_path, NAMES) as machines:
        for name in NAMES:
            head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={short}"]
            place = head if name == NAMES[0] else [f"--address={machines.address(NAMES[0])}:{PORT}"]
            own = [f"--node-ip-address={machines.address(name)}", "--num-cpus=2", "--num-gpus=0", "--block"]
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, *own]
            machines.start(name, command, tmp_path / f"ray-{name}.log", os.environ | ENVIRONMENT)
            wait(lambda name=name: any(b"raylet" in words for words in commands(machines, name)))  # type: ignore[misc]
        yield machines


def test_a_machine_that_is_lost_has_its_requests_sampled_on_another(
    cluster: Machines, ending_folder: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out.json", tmp_path / "driver.log"
    address = {"RAY_ADDRESS": f"{cluster.address(NAMES[0])}:{PORT}"}
    command = [sys.executable, "-m", "tests.engines.sample_on_cluster", str(ending_folder), str(out)]
    driver = cluster.start(NAMES[0], command, log, os.environ | ENVIRONMENT | address)
    for name in NAMES:
        wait(lambda name=name: sampling(cluster, name) == 1 or driver.poll() is not None, seconds=120)  # type: ignore[misc]
    assert driver.poll() is None, log.read_text(encoding="utf-8")
    assert not out.exists()
    cluster.kill(NAMES[1])
    assert driver.wait(timeout=180) == 0, log.read_text(encoding="utf-8")
    found = [Completion(**entry) for entry in json.loads(out.read_text(encoding="utf-8"))]
    assert found == TransformersEngine.open(ending_folder, PROFILE).generate(REQUESTS, silent)


def sampling(machines: Machines, name: str) -> int:
    """Return how many copies of the engine sample on a machine; Ray gives its processes the names of their work."""
    return sum(b"ray::Worker.generate" in words for words in commands(machines, name))


def commands(machines: Machines, name: str) -> list[bytes]:
    """Return the command lines of a machine."""
    found = []
    for process in machines.processes(name):
        path = Path(f"/proc/{process}/cmdline")
        found.append(path.read_bytes() if path.exists() else b"")
    return found
