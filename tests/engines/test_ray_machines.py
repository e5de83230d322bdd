"""Copies of an engine on Ray clusters of other machines: one that is lost, and one that knows nothing of this package."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gshf_release import environments
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
DRIVER = """
import sys
from pathlib import Path
from gshf_release.recipe.profile import Profile, Vllm
from gshf_release.run.context import silent
from gshf_release.sampling.protocol import Decoding, Request
from gshf_release.sampling.ray_engine import RayEngine
settings = Vllm(compile=False, cpu_cache_gb=1)
engine = RayEngine(Path(sys.argv[1]), Profile(engine="vllm", inference_precision="bf16", threads=1, vllm=settings))
print(len(engine.generate([Request([3, 9], Decoding(1.0, 4), seed) for seed in range(3)], silent)), "responses")
engine.close()
"""


@pytest.fixture
def token(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a token for one cluster: Ray would take one that it left in the home folder, or none."""
    path = tmp_path / "token"
    path.write_text(secrets.token_hex(), encoding="ascii")
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def start_ray(machines: Machines, name: str, python: str | Path, temporary: str, variables: Mapping[str, str]) -> None:
    """Start Ray on a machine, with two CPUs: its head on the first one. The path of its sockets has to be short."""
    head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={temporary}"]
    place = head if name == NAMES[0] else [f"--address={machines.address(NAMES[0])}:{PORT}"]
    own = [f"--node-ip-address={machines.address(name)}", "--num-cpus=2", "--num-gpus=0", "--block"]
    command = [str(python), "-m", "ray.scripts.scripts", "start", *place, *own]
    machines.start(name, command, machines.folder / f"ray-{name}.log", variables)
    wait(lambda: any(b"raylet" in words for words in commands(machines, name)))


@pytest.fixture
def cluster(tmp_path: Path, token: dict[str, str]) -> Iterator[Machines]:
    """Return two machines; the first holds Ray's head."""
    if LACKING:
        pytest.skip(f"no Ray cluster of two machines here: {LACKING}")
    with tempfile.TemporaryDirectory(prefix="ray") as short, Machines(tmp_path, NAMES) as machines:
        for name in NAMES:
            start_ray(machines, name, sys.executable, short, os.environ | ENVIRONMENT | token)
        yield machines


def test_a_machine_that_is_lost_has_its_requests_sampled_on_another(
    cluster: Machines, ending_folder: Path, tmp_path: Path, token: dict[str, str]
) -> None:
    out, log = tmp_path / "out.json", tmp_path / "driver.log"
    address = {"RAY_ADDRESS": f"{cluster.address(NAMES[0])}:{PORT}"}
    command = [sys.executable, "-m", "tests.engines.sample_on_cluster", str(ending_folder), str(out)]
    driver = cluster.start(NAMES[0], command, log, os.environ | ENVIRONMENT | token | address)
    for name in NAMES:
        wait(lambda name=name: sampling(cluster, name) == 1 or driver.poll() is not None, seconds=120)  # type: ignore[misc]
    assert driver.poll() is None, log.read_text(encoding="utf-8")
    assert not out.exists()
    cluster.kill(NAMES[1])
    assert driver.wait(timeout=180) == 0, log.read_text(encoding="utf-8")
    found = [Completion(**entry) for entry in json.loads(out.read_text(encoding="utf-8"))]
    assert found == TransformersEngine.open(ending_folder, PROFILE).generate(REQUESTS, silent)


def test_a_cluster_started_from_vllms_environment_gets_this_package_from_the_run(
    ending_folder: Path, tmp_path: Path, token: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking():
        pytest.skip(f"no machine beside this one here: {lacking()}")
    environment = environments.require("vllm")
    monkeypatch.chdir(tmp_path)
    without = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | token
    with tempfile.TemporaryDirectory(prefix="ray") as short, Machines(tmp_path, NAMES[:1]) as machines:
        start_ray(machines, NAMES[0], environment.python, short, without)
        address = {"RAY_ADDRESS": f"{machines.address(NAMES[0])}:{PORT}"}
        words = machines.command(NAMES[0], [str(environment.python), "-c", DRIVER, str(ending_folder)])
        variables = environment.variables() | token | address
        driver = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=300)
    assert driver.returncode == 0, driver.stderr
    assert driver.stdout.endswith("3 responses\n")


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
