"""Every route that a push uses, under every fault: what passes leaves one commit and its tag, what stays nothing half done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, close_session

from gshf_release.data.hashing import sha256_file
from gshf_release.errors import GshfError, NetworkError, ReleaseError, VerificationError
from gshf_release.hub import client as hub_client
from gshf_release.hub import publish as releases
from gshf_release.hub.card_update import publish_card
from gshf_release.hub.download import downloaded
from gshf_release.hub.pull_request import propose
from gshf_release.release import manifest, secrets
from gshf_release.release.verify_folder import verify_folder
from tests.release import made
from tests.servers.hub import HubServer

MODEL = "tester/made"
WHOLE = (
    *("whoami", "create_repo", "info", "revision", "refs", "tree", "validate_yaml", "preupload"),
    *("lfs_batch", "lfs_put", "lfs_verify", "commit", "create_tag", "settings"),
)
IN_PARTS = ("put_part", "complete")
COLLECTION = ("create_collection", "collection", "add_item", "change_collection")
SECOND = ("commits",)
"""What only a repository that holds something already is asked."""
SPEAKING = (
    "create_repo",
    "validate_yaml",
    "preupload",
    "lfs_put",
    "complete",
    "commit",
    "create_tag",
    "create_collection",
)
"""Each stands for a way in which the client hands on what a server says. `lfs_verify` cannot: refused, it is not asked again,
because the next attempt finds the object in its place, and the release's own comparison of checksums takes over."""
DOWNLOAD = ("revision", "tree", "resolve", "cdn")
PROPOSAL = ("discussions", "commits", "commit", "info", "tree")
PASSING = ("503", "429", "lost answer", "500 after the work", "hang")


@pytest.fixture
def api(hub: HubServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[HfApi]:
    """Return the package's own client, which repeats at once; impatient only where a server hangs."""
    hangs = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault") == "hang"
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_client, "ANSWER_SECONDS", 1.0 if hangs else 60.0)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    close_session()
    yield hub_client.client()
    close_session()  # the next test's client is patient again


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.releases(tmp_path_factory.mktemp("release"), iterations=1)


def order(hub: HubServer, route: str, fault: str) -> None:
    if fault == "lost answer":
        hub.faults.lose_answer(route)
    elif fault == "500 after the work":
        hub.faults.lose_answer(route, status=500)
    elif fault == "hang":
        hub.faults.delay(route, 1.6)
    else:
        hub.faults.fail(route, status=int(fault))


def publish(api: HfApi, release: Path) -> list[str]:
    return releases.publish(api, releases.parts(release, MODEL), public=True, report=lambda line: None)


def arrived(hub: HubServer, release: Path) -> None:
    """Check one commit, one tag with the manifest's digest, public, the bytes those of the folder."""
    repository = hub.store.find("model", MODEL)
    assert repository is not None
    titles = [commit.title for commit in repository.history("main")]
    assert titles == ["Release iter-1", "initial commit"]
    assert repository.tags == {"iter-1": repository.branches["main"]}
    folder = release / "made" / "iter-1"
    assert repository.tag_messages == {"iter-1": f"manifest sha256 {manifest.digest(folder)}"}
    assert not repository.private
    stored = {
        path: file.sha256 for path, file in repository.resolve("iter-1").files.items() if path != ".gitattributes"
    }
    listed = {name: entry["sha256"] for name, entry in manifest.read_release_manifest(folder)["files"].items()}
    assert {name: value for name, value in stored.items() if name != manifest.NAME} == listed


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("route", [*WHOLE, *IN_PARTS])
def test_a_fault_that_passes_leaves_one_commit_and_its_tag(
    hub: HubServer, api: HfApi, release: Path, route: str, fault: str
) -> None:
    hub.take_in_parts(64 if route in IN_PARTS else None)
    order(hub, route, fault)
    publish(api, release)
    assert route in [request.route for request in hub.requests]
    arrived(hub, release)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release of two iterations and a data set."""
    root = made.releases(tmp_path_factory.mktemp("several"))
    made.release(root / "made-preferences" / "main", repository=f"{MODEL}-preferences")
    return root


def publish_several(api: HfApi, several: Path) -> list[str]:
    wanted = releases.parts(several, MODEL)
    return releases.publish(api, wanted, public=True, report=lambda line: None, collection=MODEL)


def several_arrived(hub: HubServer, commits: list[str]) -> None:
    """Check two iterations with their tags, a data set, and both repositories in one collection, all public."""
    model, data = hub.store.find("model", MODEL), hub.store.find("dataset", f"{MODEL}-preferences")
    assert model is not None
    assert data is not None
    assert [commit.title for commit in model.history("main")] == ["Release iter-2", "Release iter-1", "initial commit"]
    assert [commit.title for commit in data.history("main")] == ["Release main", "initial commit"]
    assert model.tags == {"iter-1": commits[0], "iter-2": commits[1]}
    (collection,) = hub.store.collections.values()
    assert collection.items == [("model", MODEL), ("dataset", f"{MODEL}-preferences")]
    assert [found.private for found in (model, data, collection)] == [False, False, False]


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("route", [*SECOND, *COLLECTION])
def test_a_fault_that_passes_leaves_two_repositories_in_one_collection(
    hub: HubServer, api: HfApi, several: Path, route: str, fault: str
) -> None:
    if route == "collection":  # asked only where the answer of the first call was lost
        hub.faults.lose_answer("create_collection")
    order(hub, route, fault)
    commits = publish_several(api, several)
    assert route in [request.route for request in hub.requests]
    several_arrived(hub, commits)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", [*SECOND, *COLLECTION])
def test_a_refusal_at_the_end_shows_nothing_half_done(
    hub: HubServer, api: HfApi, several: Path, route: str, status: int
) -> None:
    if route == "collection":
        hub.faults.lose_answer("create_collection")
    hub.faults.fail(route, times=50, status=status)
    with pytest.raises(GshfError) as caught:
        publish_several(api, several)
    assert "\n" not in str(caught.value)
    assert all(found.private for found in hub.store.collections.values())
    if route != "change_collection":
        assert all(found.private for found in hub.store.repositories.values())
    hub.faults.clear()
    several_arrived(hub, publish_several(api, several))


@pytest.mark.parametrize("fault", ["503", "lost answer", "hang"])
@pytest.mark.parametrize("route", PROPOSAL)
def test_a_fault_that_passes_leaves_one_pull_request(
    hub: HubServer, api: HfApi, release: Path, route: str, fault: str
) -> None:
    api.create_repo(MODEL)
    order(hub, route, fault)
    propose(api, releases.parts(release, MODEL), report=lambda line: None)
    repository = hub.store.find("model", MODEL)
    assert repository is not None
    assert list(repository.pulls) == ["refs/pr/1"]
    assert [commit.title for commit in repository.history("refs/pr/1")] == ["Release iter-1", "initial commit"]


@pytest.mark.parametrize("fault", ["503", "lost answer"])
@pytest.mark.parametrize("route", ["info", "tree", "commits", "commit"])
def test_a_fault_that_passes_leaves_one_corrected_card(
    hub: HubServer, api: HfApi, tmp_path: Path, route: str, fault: str
) -> None:
    root = made.releases(tmp_path, iterations=1)
    publish(api, root)
    (root / "made" / "iter-1" / "README.md").write_text(made.card(made.cells()) + "\nMore.\n", encoding="utf-8")
    manifest.list_again(root / "made" / "iter-1")
    order(hub, route, fault)
    publish_card(api, releases.parts(root, MODEL), report=lambda line: None)
    repository = hub.store.find("model", MODEL)
    assert repository is not None
    titles = [commit.title for commit in repository.history("main")]
    assert titles == ["Release card of iter-1", "Release iter-1", "initial commit"]


def test_the_tables_name_every_route(hub: HubServer, api: HfApi, several: Path, tmp_path: Path) -> None:
    hub.take_in_parts(64)
    publish_several(api, several)
    hub.take_in_parts(None)
    propose(api, releases.parts(several, MODEL), report=lambda line: None)
    publish_card(api, releases.parts(several, MODEL), report=lambda line: None)
    with downloaded(f"{MODEL}@iter-1"):
        pass
    used = {request.route for request in hub.requests}
    assert used <= {*WHOLE, *IN_PARTS, *COLLECTION, *SECOND, *DOWNLOAD, *PROPOSAL}


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("route", SPEAKING)
def test_what_a_server_says_is_shown_without_secrets(
    hub: HubServer, api: HfApi, several: Path, route: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = ["hf_" + "Canary5" * 5, "environment-" + "Canary4" * 4, hub.write_token]
    monkeypatch.setenv("MY_SERVICE_TOKEN", canaries[1])
    secrets._known.cache_clear()
    hub.take_in_parts(64 if route in IN_PARTS else None)
    hub.faults.fail(route, times=500, status=status, message=f"debug: {' '.join(canaries)}")
    with pytest.raises(GshfError) as caught:
        publish_several(api, several)
    assert not any(canary in str(caught.value) for canary in canaries)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", WHOLE)
def test_a_refusal_is_one_line_and_leaves_no_tag_unless_all_is_there(
    hub: HubServer, api: HfApi, release: Path, route: str, status: int
) -> None:
    hub.faults.fail(route, times=50, status=status)
    with pytest.raises(GshfError) as caught:
        publish(api, release)
    assert "\n" not in str(caught.value)
    assert hub.write_token not in str(caught.value)
    repository = hub.store.find("model", MODEL)
    if repository is not None and repository.tags:
        assert route in ("settings", "refs", "create_tag")
    hub.faults.clear()
    publish(api, release)
    arrived(hub, release)


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_other_bytes_stored_by_the_hub_are_found_and_get_no_tag(
    hub: HubServer, api: HfApi, release: Path, in_parts: bool
) -> None:
    hub.take_in_parts(64 if in_parts else None)
    hub.faults.corrupt("commit")
    with pytest.raises(
        VerificationError, match=r"the Hub stores other bytes for eval/judgments/iteration-1\.test\.parquet"
    ):
        publish(api, release)
    repository = hub.store.find("model", MODEL)
    assert repository is not None
    assert repository.tags == {}
    assert repository.private, "what is not verified does not become public"


def test_a_commit_of_somebody_else_in_between_is_left_alone(hub: HubServer, api: HfApi, release: Path) -> None:
    hub.faults.stale_parent()
    with pytest.raises(GshfError, match="Somebody else commits to"):
        publish(api, release)


def test_weights_are_reported_one_by_one_and_a_second_push_finds_them(
    hub: HubServer, api: HfApi, release: Path
) -> None:
    hub.faults.fail("commit", times=50)
    lines: list[str] = []
    with pytest.raises(NetworkError):
        releases.publish(api, releases.parts(release, MODEL), public=True, report=lines.append)
    weights = release / "made" / "iter-1" / "model.safetensors"
    said = f"model.safetensors is uploaded, {weights.stat().st_size} bytes, sha256 {sha256_file(weights)}"
    assert lines == [f"{MODEL}@iter-1: {said}"]
    hub.faults.clear()
    before = len(hub.requests)
    publish(api, release)
    assert "lfs_put" not in [request.route for request in hub.requests[before:]]
    arrived(hub, release)


def test_a_card_that_the_hub_refuses_is_said_before_weights_are_sent(hub: HubServer, api: HfApi, release: Path) -> None:
    hub.faults.fail("validate_yaml", times=50, status=400)
    with pytest.raises(ReleaseError):
        publish(api, release)
    assert not {"lfs_put", "preupload"} & {request.route for request in hub.requests}


def test_large_files_sent_in_parts_are_not_sent_twice(hub: HubServer, api: HfApi, release: Path) -> None:
    hub.take_in_parts(64)
    hub.faults.fail("commit", times=50)
    with pytest.raises(NetworkError):
        publish(api, release)
    hub.faults.clear()
    before = len(hub.requests)
    publish(api, release)
    assert not {"put_part", "complete", "lfs_put"} & {request.route for request in hub.requests[before:]}
    arrived(hub, release)


# -- verify OWNER/NAME@TAG -----------------------------------------------------------------------------------


def test_a_tag_is_downloaded_and_verified(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    with downloaded(f"{MODEL}@iter-1") as folder:
        assert verify_folder(folder).numbers == 6
    assert not folder.exists()


@pytest.mark.parametrize(
    ("route", "fault"),
    [*((route, fault) for route in DOWNLOAD for fault in PASSING), ("cdn", "corrupt"), ("resolve", "corrupt")],
)
def test_a_download_that_fails_once_is_repeated(
    hub: HubServer, api: HfApi, release: Path, route: str, fault: str
) -> None:
    """A lost answer of `cdn` or `resolve` is a truncated download: its headers came, its body did not."""
    publish(api, release)
    before = len(hub.requests)
    if fault == "corrupt":
        hub.faults.corrupt(route)
    else:
        order(hub, route, fault)
    with downloaded(f"{MODEL}@iter-1") as folder:
        verify_folder(folder)
    assert route in [request.route for request in hub.requests[before:]]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", DOWNLOAD)
def test_a_download_that_is_refused_is_one_line(
    hub: HubServer, api: HfApi, release: Path, command: Any, route: str, status: int
) -> None:
    publish(api, release)
    hub.faults.fail(route, times=50, status=status)
    outcome = command("verify", f"{MODEL}@iter-1")
    assert outcome.code in (1, 3)
    assert outcome.line.startswith("Error: ")
    assert hub.write_token not in outcome.err


def test_small_files_of_other_bytes_are_found(hub: HubServer, api: HfApi, release: Path, command: Any) -> None:
    publish(api, release)
    hub.faults.corrupt("resolve", times=500)
    outcome = command("verify", f"{MODEL}@iter-1")
    assert outcome.code == 3
    assert "config.json does not have the checksum that the Hub lists" in outcome.err


def test_a_hub_that_serves_other_bytes_is_found(
    hub: HubServer, api: HfApi, release: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(api, release)
    hub.faults.corrupt("cdn", times=50)
    outcome = command("verify", f"{MODEL}@iter-1")
    assert outcome.code == 3
    assert "model.safetensors does not have the checksum that the Hub lists" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_tag_that_is_not_there_is_said_so(hub: HubServer, api: HfApi, release: Path, command: Any) -> None:
    publish(api, release)
    assert "is not on the Hub, or not for you" in command("verify", f"{MODEL}@iter-9").line
    assert "is not on the Hub, or not for you" in command("verify", "tester/none@iter-1").line


def test_a_server_without_xet_gets_a_hint(
    hub: HubServer, api: HfApi, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(NetworkError, match="set HF_HUB_DISABLE_XET=1 and run the same command again"):
        publish(api, release)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    publish(api, release)
    arrived(hub, release)
