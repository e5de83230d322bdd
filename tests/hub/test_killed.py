"""A push that is killed at any of its steps: the same call again finishes it, and every tag has the bytes of its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release.data.hashing import tree
from gshf_release.hub import publish as releases
from gshf_release.release import manifest
from tests.conftest import REPOSITORY
from tests.release import made
from tests.servers.hub import HubServer

pytestmark = pytest.mark.slow
MODEL, GGUF = "tester/made", "tester/made-GGUF"
PUBLISH = """
import sys
from pathlib import Path
from gshf_release.hub import client as hub_client
from gshf_release.hub import publish as hub
found = hub.parts(Path(sys.argv[1]), "tester/made")
hub.publish(hub_client.client(), found, public=True, report=print, collection="tester/made")
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = made.releases(tmp_path / "release")
    made.release(root / "made-GGUF" / "main", repository=GGUF)
    return root


def kill_at(hub: HubServer, route: str, release: Path) -> None:
    """Publish in a process of its own and kill -9 it while it waits for the answer of `route`."""
    rule = hub.faults.hold(route)
    variables = os.environ | hub.environment | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", PUBLISH, str(release)], env=variables, stdout=subprocess.PIPE)
    until = time.monotonic() + 120
    while rule.times:
        assert process.poll() is None, f"{route} was not asked"
        assert time.monotonic() < until, f"{route} was not asked in time"
        time.sleep(0.02)
    process.kill()
    process.communicate()
    rule.held = False


@pytest.mark.parametrize(
    "route", ["create_repo", "preupload", "lfs_put", "put_part", "commit", "create_tag", "add_item", "settings"]
)
def test_killed_and_resumed_every_tag_has_its_bytes(hub: HubServer, release: Path, tmp_path: Path, route: str) -> None:
    hub.take_in_parts(64 if route == "put_part" else None)
    kill_at(hub, route, release)
    assert all(found.private for found in hub.store.repositories.values())
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    wanted = releases.parts(release, MODEL)
    releases.publish(api, wanted, public=True, report=lambda line: None, collection=MODEL)
    for part in wanted:
        revision = part.tag or "main"
        copy = tmp_path / "copy" / part.repository / revision
        api.snapshot_download(part.repository, revision=revision, local_dir=copy)
        shutil.rmtree(copy / ".cache")
        (copy / ".gitattributes").unlink()
        assert tree(copy) == tree(part.folder)
        manifest.verify(copy)
    for name, commits in ((MODEL, 3), (GGUF, 2)):
        repository = hub.store.find("model", name)
        assert repository is not None
        assert len(list(repository.history("main"))) == commits
        assert not repository.private
    assert len(hub.store.collections) == 1
    if route not in ("lfs_put", "put_part"):  # killed while an object was on its way, that one is sent again
        sent = [request.path for request in hub.requests if request.route == "lfs_put"]
        assert sent
        assert len(sent) == len(set(sent)), "no object is sent twice"
