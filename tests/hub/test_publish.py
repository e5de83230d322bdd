"""Releases to a Hub with the real client: what arrives, what a failure leaves, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from gshf_release.data.hashing import tree
from gshf_release.errors import NetworkError, ReleaseError, VerificationError
from gshf_release.hub import client as hub_client
from gshf_release.hub import dry_run as hub_dry_run
from gshf_release.hub import publish as releases
from gshf_release.release import manifest
from gshf_release.run.directory import RunDirectory
from tests.conftest import REPOSITORY, Outcome
from tests.servers.hub import HubServer

MODEL = "tester/tiny"
GGUF = "tester/tiny-GGUF"
SENDING = {"preupload", "lfs_batch", "lfs_put", "lfs_verify", "commit", "create_repo", "create_tag"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once."""
    for module in (releases, hub_client):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.write_token)


def wanted(run: RunDirectory) -> list[releases.FolderCommit]:
    return releases.parts(run.path / "release", MODEL)


def publish(api: HfApi, run: RunDirectory, *, public: bool = False) -> list[str]:
    return releases.publish(api, wanted(run), public=public, report=lambda line: None)


def titles(api: HfApi, repository: str = MODEL) -> list[str]:
    """Return the titles of the commits on main, oldest first."""
    return [commit.title for commit in reversed(api.list_repo_commits(repository))]


def tags(api: HfApi) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(MODEL).tags}


def downloaded(api: HfApi, repository: str, revision: str, folder: Path) -> dict[str, str]:
    """Return the checksums of a revision as its user gets it."""
    api.snapshot_download(repository, revision=revision, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    (folder / ".gitattributes").unlink()
    return tree(folder)


def arrived(api: HfApi, run: RunDirectory, tmp_path: Path) -> None:
    """Check that each iteration is one commit with its tag, and that what comes back is what was sent."""
    made = [title for title in titles(api) if title.startswith("Release")]
    assert made == ["Release iter-1", "Release iter-2"]
    assert [title for title in titles(api, GGUF) if title.startswith("Release")] == ["Release main"]
    for part in wanted(run):
        revision = part.tag or "main"
        copy = tmp_path / "downloaded" / part.repository / revision
        assert downloaded(api, part.repository, revision, copy) == tree(part.folder)
        assert manifest.verify(copy) > 0


def test_each_iteration_is_a_commit_with_a_tag(api: HfApi, released: RunDirectory, tmp_path: Path) -> None:
    first, second, quantized = publish(api, released)
    assert tags(api) == {"iter-1": first, "iter-2": second}
    assert api.repo_info(MODEL).sha == second
    assert api.repo_info(GGUF).sha == quantized
    assert titles(api) == ["initial commit", "Release iter-1", "Release iter-2"]
    arrived(api, released, tmp_path)


def test_checksums_on_the_hub_are_those_of_the_folders(api: HfApi, released: RunDirectory) -> None:
    publish(api, released)
    for part in wanted(released):
        result = api.verify_repo_checksums(part.repository, revision=part.tag, local_dir=part.folder)
        assert (result.mismatches, result.missing_paths) == ([], [".gitattributes"])


def test_repositories_are_private_unless_public_is_asked_for(api: HfApi, released: RunDirectory) -> None:
    publish(api, released)
    assert [api.repo_info(name).private for name in (MODEL, GGUF)] == [True, True]
    publish(api, released, public=True)
    assert [api.repo_info(name).private for name in (MODEL, GGUF)] == [False, False]
    publish(api, released)
    assert [api.repo_info(name).private for name in (MODEL, GGUF)] == [False, False]


def test_publishing_again_sends_nothing(hub: HubServer, api: HfApi, released: RunDirectory) -> None:
    commits = publish(api, released)
    before = len(hub.requests)
    assert publish(api, released) == commits
    again = [request for request in hub.requests[before:] if request.method not in ("GET", "HEAD")]
    assert {request.route for request in again} <= {"create_repo"}
    assert not {request.route for request in again} & {"preupload", "lfs_batch", "lfs_put", "commit"}


def test_the_metadata_of_the_card_reach_the_hub(api: HfApi, released: RunDirectory) -> None:
    publish(api, released)
    data = api.model_info(MODEL).card_data
    assert data is not None
    assert data.license == "apache-2.0"


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda hub: hub.faults.fail("commit"), id="503 on commit"),
        pytest.param(lambda hub: hub.faults.fail("commit", times=3, status=429), id="429 on commit"),
        pytest.param(lambda hub: hub.faults.lose_answer("commit"), id="answer lost"),
        pytest.param(lambda hub: hub.faults.lose_answer("commit", status=500), id="500 after the commit"),
        pytest.param(lambda hub: hub.faults.fail("lfs_put", times=2), id="503 on upload"),
        pytest.param(lambda hub: hub.faults.fail("create_tag"), id="503 on tag"),
        pytest.param(lambda hub: hub.faults.lose_answer("create_tag"), id="tag answer lost"),
        pytest.param(lambda hub: hub.faults.lose_answer("create_repo"), id="repository answer lost"),
        pytest.param(lambda hub: hub.faults.fail("tree", times=2), id="503 on listing"),
        pytest.param(lambda hub: hub.faults.fail("whoami", times=2, status=504), id="504 on the token"),
    ],
)
def test_a_passing_fault_leaves_one_commit_an_iteration(
    hub: HubServer, api: HfApi, released: RunDirectory, tmp_path: Path, order: Callable[[HubServer], None]
) -> None:
    order(hub)
    commits = publish(api, released)
    assert tags(api) == {"iter-1": commits[0], "iter-2": commits[1]}
    arrived(api, released, tmp_path)


def test_a_commit_of_somebody_else_in_between_is_left_alone(hub: HubServer, api: HfApi, released: RunDirectory) -> None:
    hub.faults.stale_parent()
    with pytest.raises(ReleaseError, match="Somebody else commits to"):
        publish(api, released)
    assert tags(api) == {}


def test_a_fault_that_stays_is_a_network_error_and_the_next_call_goes_on(
    hub: HubServer, api: HfApi, released: RunDirectory, tmp_path: Path
) -> None:
    hub.faults.fail("commit", times=20)
    with pytest.raises(NetworkError, match=r"answered 503: .*Run the same command again"):
        publish(api, released)
    hub.faults.clear()
    publish(api, released)
    arrived(api, released, tmp_path)


def test_other_bytes_on_the_hub_are_found(api: HfApi, released: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    send = api.create_commit

    def lose_the_tokenizer(repository: str, operations: list[Any], **options: Any) -> Any:
        return send(repository, [entry for entry in operations if entry.path_in_repo != "tokenizer.json"], **options)

    monkeypatch.setattr(api, "create_commit", lose_the_tokenizer)
    with pytest.raises(VerificationError, match=r"tester/tiny@iter-1: the Hub stores other bytes for tokenizer\.json"):
        publish(api, released)
    assert tags(api) == {}, "no tag on what was not verified"


def test_a_hub_that_is_down_is_exit_code_4(
    hub: HubServer, released: RunDirectory, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    outcome = command("publish", released.path, "--to", MODEL)
    assert outcome.code == 4
    assert "could not be reached" in outcome.line
    assert "Run the same command again" in outcome.line


def test_a_dry_run_without_a_network_says_so(
    hub: HubServer, released: RunDirectory, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    outcome = command("publish", released.path, "--to", MODEL, "--dry-run", "--json")
    assert outcome.code == 0
    assert {row["status"] for row in json.loads(outcome.out)["dry_run"]} == {"remote unknown"}


# -- refusals ------------------------------------------------------------------------------------------------


def test_a_read_token_is_refused_in_one_line(
    hub: HubServer, released: RunDirectory, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    outcome = command("publish", released.path, "--to", MODEL)
    assert outcome.code == 1
    assert "The token may only read." in outcome.line
    assert hub.read_token not in outcome.err
    assert not hub.store.repositories


def test_another_owner_is_refused(api: HfApi, copy: RunDirectory) -> None:
    with pytest.raises(ReleaseError, match="'tester' and may not write to 'somebody'"):
        hub_client.check_access(api, "somebody/tiny")
    hub_client.check_access(api, "test-lab/tiny")


def test_a_repository_with_other_content_stays_untouched(api: HfApi, released: RunDirectory) -> None:
    api.create_repo(MODEL)
    head = api.create_commit(MODEL, [CommitOperationAdd("mine.txt", b"mine")], commit_message="mine").oid
    with pytest.raises(ReleaseError, match=r"holds other content on the Hub, for example mine\.txt"):
        publish(api, released)
    assert api.repo_info(MODEL).sha == head
    assert tags(api) == {}


def test_a_tag_with_other_content_is_not_moved(api: HfApi, released: RunDirectory, copy: RunDirectory) -> None:
    commits = publish(api, released)
    folder = copy.path / "release" / "tiny" / "iter-2"
    (folder / "README.md").write_text((folder / "README.md").read_text(encoding="utf-8") + "\nmore\n", encoding="utf-8")
    (folder / "manifest.json").unlink()
    manifest.write_release_manifest(folder, {})
    with pytest.raises(ReleaseError, match=r"tester/tiny@iter-2 exists on the Hub with other content"):
        publish(api, copy)
    assert tags(api) == {"iter-1": commits[0], "iter-2": commits[1]}
    assert api.repo_info(MODEL).sha == commits[1]


@pytest.mark.parametrize("name", ["model.bin", "iter-1.pt"])
def test_a_folder_that_breaks_the_rules_is_not_sent(hub: HubServer, copy: RunDirectory, name: str) -> None:
    (copy.path / "release" / "tiny" / "iter-1" / name).write_bytes(b"x")
    with pytest.raises(ReleaseError, match="must not be published"):
        wanted(copy)


def test_a_changed_folder_is_not_sent(copy: RunDirectory) -> None:
    path = copy.path / "release" / "tiny" / "iter-1" / "config.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"config\.json"):
        wanted(copy)


def test_nothing_to_publish_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"holds no finished release\. Run: gshf-release publish RUN --out DIR"):
        releases.parts(tmp_path, MODEL)


def test_iterations_go_in_order_of_their_number(released: RunDirectory, tmp_path: Path) -> None:
    for number in (1, 2, 10):
        shutil.copytree(released.path / "release" / "tiny" / "iter-1", tmp_path / "tiny" / f"iter-{number}")
    assert [part.tag for part in releases.parts(tmp_path, MODEL)] == ["iter-1", "iter-2", "iter-10"]


def test_a_plan_tells_new_changed_and_unchanged(api: HfApi, released: RunDirectory, copy: RunDirectory) -> None:
    part = wanted(copy)[0]
    assert {entry.status for entry in hub_dry_run.plan(api, part).entries} == {"new"}
    publish(api, released)
    assert {entry.status for entry in hub_dry_run.plan(api, part).entries} == {"unchanged"}
    (part.folder / "config.json").write_text("{}", encoding="utf-8")
    assert [entry.path for entry in hub_dry_run.plan(api, part).entries if entry.status == "changed"] == ["config.json"]


# -- the command in a process of its own ---------------------------------------------------------------------


def start(hub: HubServer, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gshf_release", "publish", *(str(argument) for argument in arguments)]
    variables = os.environ | hub.environment | environment
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=180)
    return Outcome(process.returncode, out, err)


def test_a_dry_run_shows_every_file_and_sends_nothing(hub: HubServer, released: RunDirectory) -> None:
    outcome = finish(start(hub, released.path, "--to", MODEL, "--dry-run"))
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("[dry run] ") == 5
    assert "[dry run] tester/tiny, tag iter-2: " in outcome.out
    for path in (released.path / "release" / "tiny" / "iter-1").rglob("*"):
        if path.is_file():
            assert path.name in outcome.out
    assert {request.method for request in hub.requests} <= {"GET", "HEAD"}
    assert not hub.store.repositories


def test_a_wrong_token_is_one_line_without_the_token(hub: HubServer, released: RunDirectory) -> None:
    token = "hf_" + "Wrong" * 7
    outcome = finish(start(hub, released.path, "--to", MODEL, HF_TOKEN=token))
    assert outcome.code == 1
    assert "does not accept the token" in outcome.line
    assert "hf auth login" in outcome.line
    assert token not in outcome.out + outcome.err
    assert not hub.store.repositories


def test_killed_in_the_middle_of_a_push_and_resumed(
    hub: HubServer, api: HfApi, released: RunDirectory, tmp_path: Path
) -> None:
    rule = hub.faults.hold("commit")
    process = start(hub, released.path, "--to", MODEL)
    until = time.monotonic() + 120
    while rule.times:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "nothing is committed"
        time.sleep(0.02)
    process.kill()
    process.communicate()
    rule.held = False
    assert "lfs_put" in [request.route for request in hub.requests]
    assert tags(api) == {}
    outcome = finish(start(hub, released.path, "--to", MODEL))
    assert outcome.code == 0, outcome.err
    assert (
        outcome.out
        == "Published tester/tiny@iter-1, tester/tiny@iter-2, tester/tiny-GGUF@main (private unless it existed).\n"
    )
    assert hub.write_token not in outcome.err
    arrived(api, released, tmp_path)
    (entry,) = [entry for entry in released.journal() if entry["event"] == "published"]
    assert entry["commits"]["tester/tiny@iter-2"] == tags(api)["iter-2"]
    assert [entry["step"] for entry in released.journal() if entry["event"] == "publishing"][-1] == (
        "collection tester/tiny-000000000000000000000000: 2 repositories"
    )
