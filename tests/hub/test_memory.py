"""A large file goes to the Hub in a fixed amount of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gshf_release.data.hashing import sha256_file
from gshf_release.release import manifest
from tests.conftest import REPOSITORY
from tests.release import made
from tests.servers.hub import HubServer

PUBLISH = """
import re, sys
from pathlib import Path
from gshf_release.hub import client as hub_client
from gshf_release.hub import publish as hub
found = hub.parts(Path(sys.argv[1]), "tester/made")
hub.publish(hub_client.client(), found, public=False, report=print)
# Not ru_maxrss: it begins with what the process had before exec, which is the test suite's own memory.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
GIGABYTE = 10**9


def sparse(folder: Path, size: int) -> None:
    """Replace the weights by one tensor of `size` bytes that takes no room on the disk."""
    header = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + size)
    manifest.list_again(folder)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "in parts", "xet"])
def test_a_large_sparse_file_stays_far_below_its_size(hub: HubServer, tmp_path: Path, mode: str) -> None:
    """700 MB rather than 3 GB, for the time it takes to hash them; `make test-large` takes 3 GB."""
    size = int(os.environ.get("GSHF_TEST_SPARSE_BYTES") or 700 * 10**6)
    release = made.releases(tmp_path / "release", iterations=1)
    sparse(release / "made" / "iter-1", size)
    hub.take_in_parts(64 * 2**20 if mode == "in parts" else None)
    hub.speak_xet(mode == "xet")
    variables = {"PYTHONPATH": str(REPOSITORY), "HF_HUB_DISABLE_XET": "0" if mode == "xet" else "1"}
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", PUBLISH, str(release)],
        env=os.environ | hub.environment | variables,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    try:
        assert run.returncode == 0, run.stderr
        peak = int(run.stdout.split()[-1]) * 1024
        print(f"\n{mode}: {size / 1e9:.1f} GB in {seconds:.0f} s, at most {peak / 1e6:.0f} MB of memory")
        assert ("xet_xorb" if mode == "xet" else "lfs_verify") in {request.route for request in hub.requests}
        assert peak < min(size / 2, GIGABYTE)
    finally:
        weights = release / "made" / "iter-1" / "model.safetensors"
        hub.store.objects.path(sha256_file(weights)).unlink(missing_ok=True)  # the server's copy has no holes
