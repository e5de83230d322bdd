"""The collection of a release: all its repositories in one place, made once, shown last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release.errors import ReleaseError
from gshf_release.hub import publish as releases
from gshf_release.run.directory import RunDirectory
from tests.conftest import Outcome
from tests.release import made
from tests.servers.hub import HubServer
from tests.servers.hub.store import Collection

MODEL, GGUF, PAIRS = "tester/made", "tester/made-GGUF", "tester/made-preferences"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.write_token)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release of three repositories."""
    root = made.releases(tmp_path_factory.mktemp("release"), iterations=1)
    for name in ("made-GGUF", "made-preferences"):
        made.release(root / name / "main", repository=f"tester/{name}")
    return root


def publish(api: HfApi, release: Path, *, public: bool = False) -> list[str]:
    wanted = releases.parts(release, MODEL)
    return releases.publish(api, wanted, public=public, report=lambda line: None, collection=MODEL)


def only(hub: HubServer) -> Collection:
    (found,) = hub.store.collections.values()
    return found


def test_it_holds_every_repository_of_the_release_and_is_private(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    assert only(hub).items == [("model", MODEL), ("model", GGUF), ("dataset", PAIRS)]
    assert (only(hub).title, only(hub).private) == ("made", True)


def test_publishing_again_changes_nothing_in_it(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    before = len(hub.requests)
    publish(api, release)
    assert "add_item" not in {request.route for request in hub.requests[before:]}
    assert len(only(hub).items) == 3


def test_it_is_shown_after_its_repositories(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    publish(api, release, public=True)
    routes = [request.route for request in hub.requests]
    assert routes.index("change_collection") > max(at for at, route in enumerate(routes) if route == "settings")
    assert not only(hub).private
    assert not any(repository.private for repository in hub.store.repositories.values())
    publish(api, release)
    assert not only(hub).private, "what is shown is not hidden by a later call"


def test_a_repository_that_came_later_is_added(hub: HubServer, api: HfApi, release: Path, tmp_path: Path) -> None:
    publish(api, release)
    only(hub).items.remove(("dataset", PAIRS))
    publish(api, release)
    assert only(hub).items[-1] == ("dataset", PAIRS)


def test_another_collection_of_that_title_is_left_alone(hub: HubServer, api: HfApi, release: Path) -> None:
    api.create_collection("made", description="mine")
    with pytest.raises(ReleaseError, match=r"another collection 'made' .* publish with --no-collection"):
        publish(api, release, public=True)
    assert only(hub).items == []
    assert all(repository.private for repository in hub.store.repositories.values())
    releases.publish(api, releases.parts(release, MODEL), public=True, report=lambda line: None)
    assert not any(repository.private for repository in hub.store.repositories.values())


def test_a_token_that_may_not_collect_leaves_the_release_private(hub: HubServer, api: HfApi, release: Path) -> None:
    hub.faults.fail("create_collection", times=9, status=403)
    with pytest.raises(ReleaseError, match=r"The collection: The Hub answered 403.*--no-collection"):
        publish(api, release, public=True)
    assert all(repository.private for repository in hub.store.repositories.values())


def test_one_repository_needs_no_collection(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    publish(api, made.releases(tmp_path, iterations=1))
    assert not hub.store.collections


def test_a_dry_run_names_it(
    hub: HubServer, released: RunDirectory, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    asked = ["publish", released.path, "--to", "tester/tiny", "--dry-run"]
    document = json.loads(command(*asked, "--json").out)
    assert document["collection"] == {"title": "tiny", "repositories": ["tester/tiny", "tester/tiny-GGUF"]}
    assert "[dry run] collection tiny: tester/tiny, tester/tiny-GGUF" in command(*asked).out
    assert "collection" not in command(*asked, "--no-collection").out
    assert not hub.store.collections
