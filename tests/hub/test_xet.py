"""Releases by the Xet protocol, which the real client speaks unless told not to: in a process of its own, where it is on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release.data.hashing import tree
from gshf_release.hub import publish as releases
from tests.conftest import REPOSITORY, Outcome
from tests.release import made
from tests.release.blocks import shell
from tests.servers.hub import HubServer

pytestmark = pytest.mark.slow
MODEL, PAIRS = "tester/made", "tester/made-preferences"
XET = ("xet_write_token", "xet_grant", "xet_xorb", "xet_xorb_commit", "xet_shard")
PUBLISH = """
import sys
from pathlib import Path
from gshf_release.errors import GshfError
from gshf_release.hub import client as hub_client
from gshf_release.hub import publish as hub
found = hub.parts(Path(sys.argv[1]), "tester/made")
try:
    hub.publish(hub_client.client(), found, public=True, report=print, collection="tester/made")
except GshfError as error:
    sys.exit(str(error))
"""
IMPATIENT = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two iterations, one with weights of several chunks, and a data set."""
    pytest.importorskip("hf_xet")
    root = made.releases(tmp_path_factory.mktemp("release"))
    made.release(root / "made-preferences" / "main", repository=PAIRS)
    return root


def publish(hub: HubServer, release: Path, **more: str) -> Outcome:
    variables = os.environ | hub.environment | IMPATIENT | {"HF_HUB_DISABLE_XET": "0", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PUBLISH, str(release)]
    done = subprocess.run(command, env=variables | more, capture_output=True, text=True, check=False, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)


def arrived(hub: HubServer, release: Path, folder: Path) -> None:
    """Check one commit an iteration, tags on them, and every byte as a user gets it."""
    model = hub.store.find("model", MODEL)
    assert model is not None
    assert [commit.title for commit in model.history("main")] == ["Release iter-2", "Release iter-1", "initial commit"]
    assert model.tags["iter-2"] == model.branches["main"]
    for part in releases.parts(release, MODEL):
        copy = folder / part.repository / part.title
        kind = " --repo-type dataset" if part.repo_type == "dataset" else ""
        target = f"{part.repository} --revision {part.tag or 'main'}{kind}"
        copy.mkdir(parents=True)
        shell(f"hf download {target} --local-dir .\nrm -r .cache .gitattributes", copy, hub.environment)
        assert tree(copy) == tree(part.folder)


def test_a_release_goes_through_xet_and_comes_back_byte_for_byte(hub: HubServer, release: Path, tmp_path: Path) -> None:
    hub.speak_xet()
    outcome = publish(hub, release)
    assert outcome.code == 0, outcome.err
    routes = {request.route for request in hub.requests}
    assert {*XET} <= routes
    assert not {"lfs_batch", "lfs_put", "put_part"} & routes
    arrived(hub, release, tmp_path)


def test_publishing_again_sends_nothing_by_xet_either(hub: HubServer, release: Path) -> None:
    hub.speak_xet()
    assert publish(hub, release).code == 0
    before = len(hub.requests)
    assert publish(hub, release).code == 0
    assert not {*XET, "commit"} & {request.route for request in hub.requests[before:]}


@pytest.mark.parametrize("route", [*XET, "commit"])
@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda hub, route: hub.faults.fail(route), id="503"),
        pytest.param(lambda hub, route: hub.faults.fail(route, status=429), id="429"),
        pytest.param(lambda hub, route: hub.faults.lose_answer(route), id="lost answer"),
        pytest.param(lambda hub, route: hub.faults.lose_answer(route, status=500), id="500 after the work"),
    ],
)
def test_a_fault_of_xet_that_passes_leaves_one_commit_an_iteration(
    hub: HubServer, release: Path, tmp_path: Path, route: str, order: Callable[[HubServer, str], None]
) -> None:
    hub.speak_xet()
    order(hub, route)
    outcome = publish(hub, release)
    assert outcome.code == 0, outcome.err
    assert route in {request.route for request in hub.requests}
    arrived(hub, release, tmp_path)


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize("route", [route for route in XET if route != "xet_xorb_commit"])
def test_storage_that_stays_away_is_one_line_and_the_other_way_finishes(
    hub: HubServer, release: Path, tmp_path: Path, route: str, status: int
) -> None:
    """All but `xet_xorb_commit`, which the client can do without: the shard names the blocks again."""
    hub.speak_xet()
    hub.faults.fail(route, times=500, status=status, message="debug: hf_" + "Canary2" * 5)
    outcome = publish(hub, release)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "Canary2" not in outcome.err
    assert hub.write_token not in outcome.err
    assert "HF_HUB_DISABLE_XET=1" in outcome.err
    model = hub.store.find("model", MODEL)
    assert model is not None
    assert (model.tags, model.private) == ({}, True)
    assert publish(hub, release, HF_HUB_DISABLE_XET="1").code == 0
    arrived(hub, release, tmp_path)


def test_bytes_that_are_not_what_was_announced_are_refused(hub: HubServer, tmp_path: Path) -> None:
    """The fixture itself: a shard whose file does not hash to its name is no file."""
    hub.speak_xet()
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    api.create_repo(MODEL)
    (tmp_path / "a.safetensors").write_bytes(b"a" * 100_000)
    code = """
import sys, hf_xet
session = hf_xet.XetSession()
url, token, path = sys.argv[1:]
with session.new_upload_commit(token_refresh_url=url, token_refresh_headers={"Authorization": f"Bearer {token}"}) as commit:
    commit.start_upload_file(path, sha256="0" * 64)
"""
    url = f"{hub.endpoint}/api/models/{MODEL}/xet-write-token/main"
    done = subprocess.run(
        [sys.executable, "-c", code, url, hub.write_token, str(tmp_path / "a.safetensors")],
        env=os.environ | hub.environment | IMPATIENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert not hub.store.objects.path("0" * 64).exists()
