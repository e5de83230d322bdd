"""The fake Hub against the real client: what a release does, and what can go wrong while it does it.

Run: `pytest tests/servers/test_hub_server.py`.
"""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import huggingface_hub.constants
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.servers.hub import HubServer
from tests.servers.hub.git import object_id, tree_oids

REPO = "tester/policy"
WEIGHTS = "model.safetensors"
WEIGHT_BYTES = 20 * 1024 * 1024
CARD = b"---\nlicense: cc-by-sa-4.0\nbase_model: lab/base\nbase_model_relation: finetune\n---\n# Policy\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """One server for all tests."""
    with HubServer(tmp_path_factory.mktemp("hub")) as started:
        yield started


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The server as new; the client's cache goes to the test's folder, Xet is off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    server.reset()
    return server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """The owner's client, with one private repository."""
    client = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    client.create_repo(REPO, private=True)
    return client


def write_release(folder: Path, seed: int, weight_bytes: int = 4096) -> Path:
    """A folder as a release has it: card, weights, a nested file whose name needs quoting, an empty file."""
    (folder / "eval results").mkdir(parents=True)
    (folder / "README.md").write_bytes(CARD + f"Iteration {seed}\n".encode())
    (folder / WEIGHTS).write_bytes(random.Random(seed).randbytes(weight_bytes))
    (folder / "eval results" / "größe #1.csv").write_text(f"win rate,{seed}\n", encoding="utf-8")
    (folder / "empty.txt").touch()
    return folder


def additions(folder: Path) -> list[CommitOperationAdd]:
    """One operation for each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]


def commit_folder(api: HfApi, folder: Path, parent: str | None = None) -> str:
    """Commits a folder on main; returns the id of the commit."""
    return api.create_commit(REPO, additions(folder), commit_message="release", parent_commit=parent).oid


def head(api: HfApi) -> str:
    """The commit that main points to."""
    return str(api.repo_info(REPO).sha)


def digests(folder: Path) -> dict[str, str]:
    """Checksums of a folder, without what the client and the Hub add."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    contents.pop(".gitattributes", None)
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def upload_link(hub: HubServer, sha256: str, size: int) -> str:
    """Asks where to put a large file, as the client does."""
    batch = {"operation": "upload", "objects": [{"oid": sha256, "size": size}]}
    headers = {"authorization": f"Bearer {hub.write_token}"}
    answer = httpx2.post(f"{hub.endpoint}/{REPO}.git/info/lfs/objects/batch", headers=headers, json=batch)
    return str(answer.json()["objects"][0]["actions"]["upload"]["href"])


def uploads(hub: HubServer) -> list[int | None]:
    """How the uploads of large files ended."""
    return [request.status for request in hub.requests if request.route == "lfs_put"]


def test_each_tag_downloads_as_it_was_committed(api: HfApi, tmp_path: Path) -> None:
    releases = [write_release(tmp_path / f"iter-{number}", number, WEIGHT_BYTES) for number in (0, 1)]
    parent = head(api)
    for number, folder in enumerate(releases):
        parent = commit_folder(api, folder, parent)
        api.create_tag(REPO, tag=f"iter-{number}", revision=parent)

    for number, folder in enumerate(releases):
        copy = tmp_path / f"copy-{number}"
        api.snapshot_download(REPO, revision=f"iter-{number}", local_dir=copy)
        assert digests(copy) == digests(folder)
    targets = {tag.name: tag.target_commit for tag in api.list_repo_refs(REPO).tags}
    assert targets["iter-1"] == parent != targets["iter-0"]


def test_a_new_repository_is_private_and_belongs_to_the_user(api: HfApi) -> None:
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    info = api.model_info(REPO)
    assert info.private is True
    assert [file.rfilename for file in info.siblings or []] == [".gitattributes"]


def test_creating_a_repository_twice_is_refused_unless_allowed(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo(REPO)
    assert caught.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO


def test_checksums_of_the_source_folder_agree_after_a_commit(api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0)
    oid = commit_folder(api, folder)
    result = api.verify_repo_checksums(REPO, revision=oid, local_dir=folder)
    assert result.checked_count == 4
    assert result.mismatches == []
    assert result.missing_paths == [".gitattributes"]


@pytest.mark.parametrize("name", [WEIGHTS, "README.md"])
def test_a_changed_file_shows_in_the_checksums(api: HfApi, tmp_path: Path, name: str) -> None:
    folder = write_release(tmp_path / "release", 0)
    commit_folder(api, folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    result = api.verify_repo_checksums(REPO, local_dir=folder)
    assert [mismatch["path"] for mismatch in result.mismatches] == [name]


def test_a_second_commit_on_the_same_parent_is_stale(api: HfApi, tmp_path: Path) -> None:
    parent = head(api)
    commit_folder(api, write_release(tmp_path / "first", 0), parent)
    with pytest.raises(HfHubHTTPError) as caught:
        commit_folder(api, write_release(tmp_path / "second", 1), parent)
    assert caught.value.response.status_code == 412


def test_a_commit_from_elsewhere_makes_the_parent_stale(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    parent = head(api)
    hub.faults.stale_parent()
    with pytest.raises(HfHubHTTPError) as caught:
        commit_folder(api, write_release(tmp_path / "release", 0), parent)
    assert caught.value.response.status_code == 412
    assert commit_folder(api, tmp_path / "release", head(api)) == head(api)


def test_the_client_repeats_an_upload_that_failed_twice(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    hub.faults.fail("lfs_put", times=2)
    folder = write_release(tmp_path / "release", 0, 1024 * 1024)
    commit_folder(api, folder)
    assert uploads(hub) == [503, 503, 200]
    assert api.verify_repo_checksums(REPO, local_dir=folder).mismatches == []


def test_the_client_does_not_repeat_a_commit(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    before = head(api)
    hub.faults.fail("commit")
    with pytest.raises(HfHubHTTPError) as caught:
        commit_folder(api, write_release(tmp_path / "release", 0))
    assert caught.value.response.status_code == 503
    assert head(api) == before


@pytest.mark.parametrize("status", [None, 500])
def test_a_commit_stays_when_its_answer_is_lost(hub: HubServer, api: HfApi, tmp_path: Path, status: int | None) -> None:
    before = head(api)
    hub.faults.lose_answer("commit", status=status)
    folder = write_release(tmp_path / "release", 0)
    with pytest.raises(HfHubHTTPError if status else httpx2.RemoteProtocolError):
        commit_folder(api, folder)
    landed = head(api)
    assert landed != before
    assert commit_folder(api, folder) == landed


def test_an_interrupted_download_is_continued(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0, 1024 * 1024)
    commit_folder(api, folder)
    hub.faults.lose_answer("cdn")
    path = api.hf_hub_download(REPO, WEIGHTS)
    assert Path(path).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_large_file_can_be_read_in_part(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0)
    commit_folder(api, folder)
    headers = {"authorization": f"Bearer {hub.write_token}", "range": "bytes=8-15"}
    url = f"{hub.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    answer = httpx2.get(url, headers=headers, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, (folder / WEIGHTS).read_bytes()[8:16])


def test_the_cdn_refuses_unsigned_links(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    commit_folder(api, write_release(tmp_path / "release", 0))
    url = f"{hub.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    location = httpx2.get(url, headers={"authorization": f"Bearer {hub.write_token}"}).headers["location"]
    assert httpx2.get(location).status_code == 200
    assert httpx2.get(location.partition("?")[0]).status_code == 403


def test_a_wrong_token_is_an_error_of_its_own(hub: HubServer, api: HfApi) -> None:
    stranger = HfApi(endpoint=hub.endpoint, token="hf_wrong_token")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        stranger.whoami()
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.repo_info(REPO)
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_a_private_repository_is_hidden_without_a_token(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    anonymous = HfApi(endpoint=hub.endpoint, token=False)
    with pytest.raises(RepositoryNotFoundError):
        anonymous.repo_info(REPO)
    with pytest.raises(RepositoryNotFoundError):
        anonymous.snapshot_download(REPO, local_dir=tmp_path / "copy")
    api.update_repo_settings(REPO, visibility="public")
    assert anonymous.repo_info(REPO).private is False


def test_a_read_token_reads_and_does_not_write(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    reader = HfApi(endpoint=hub.endpoint, token=hub.read_token)
    assert reader.repo_info(REPO).private is True
    with pytest.raises(HfHubHTTPError) as caught:
        commit_folder(reader, write_release(tmp_path / "release", 0))
    assert caught.value.response.status_code == 403


def test_a_foreign_namespace_is_refused(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("somebody/policy")
    assert caught.value.response.status_code == 403


def test_a_branch_may_have_a_slash(api: HfApi) -> None:
    api.create_branch(REPO, branch="runs/seed-1")
    made = api.create_commit(
        REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="on the branch", revision="runs/seed-1"
    )
    assert api.repo_info(REPO, revision="runs/seed-1").sha == made.oid != head(api)
    assert [commit.title for commit in api.list_repo_commits(REPO, revision="runs/seed-1")] == [
        "on the branch",
        "initial commit",
    ]
    api.delete_branch(REPO, branch="runs/seed-1")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="runs/seed-1")


def test_a_tag_does_not_move(api: HfApi) -> None:
    first = head(api)
    api.create_tag(REPO, tag="iter-0", revision=first)
    second = api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="more").oid
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(REPO, tag="iter-0", revision=second)
    assert caught.value.response.status_code == 409
    assert api.repo_info(REPO, revision="iter-0").sha == first
    api.delete_tag(REPO, tag="iter-0")
    assert api.list_repo_refs(REPO).tags == []


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("license: nope", "license"),
        ("base_model_relation: cousin", "base_model_relation"),
        ("license: [mit", "not YAML"),
        ("model-index:\n- name: m\n  results:\n  - task: {type: t}\n    metrics: []", "dataset"),
    ],
)
def test_an_invalid_card_is_refused_before_anything_is_sent(
    hub: HubServer, api: HfApi, metadata: str, reason: str
) -> None:
    card = CommitOperationAdd("README.md", f"---\n{metadata}\n---\n".encode())
    with pytest.raises(ValueError, match=reason):
        api.create_commit(REPO, [card], commit_message="card")
    assert "preupload" not in {request.route for request in hub.requests}


def test_metadata_of_the_card_come_back_with_the_repository(api: HfApi, tmp_path: Path) -> None:
    commit_folder(api, write_release(tmp_path / "release", 0))
    card_data = api.model_info(REPO).card_data
    assert card_data is not None
    assert (card_data.license, card_data["base_model_relation"]) == ("cc-by-sa-4.0", "finetune")


def test_deleting_an_unknown_file_changes_nothing(api: HfApi) -> None:
    before = head(api)
    added, deleted = CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("missing.txt")
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(REPO, [added, deleted], commit_message="half")
    assert head(api) == before


def test_a_folder_is_deleted_with_its_files(api: HfApi, tmp_path: Path) -> None:
    commit_folder(api, write_release(tmp_path / "release", 0))
    api.delete_folder("eval results", REPO)
    assert api.list_repo_files(REPO) == [".gitattributes", "README.md", "empty.txt", WEIGHTS]


def test_a_pointer_without_its_object_is_refused(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0)
    operations = additions(folder)
    api.preupload_lfs_files(REPO, operations)
    repository = hub.store.find("model", REPO)
    assert repository is not None
    repository.lfs_objects.clear()
    with pytest.raises(BadRequestError, match=WEIGHTS):
        api.create_commit(REPO, operations, commit_message="dangling")


def test_an_object_uploaded_before_is_not_sent_again(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0)
    api.preupload_lfs_files(REPO, additions(folder))
    commit_folder(api, folder)
    assert uploads(hub) == [200]


@pytest.mark.usefixtures("api")
def test_an_upload_broken_off_leaves_nothing(hub: HubServer) -> None:
    sha256 = "0" * 64

    def body() -> Iterator[bytes]:
        yield bytes(1024)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        httpx2.put(upload_link(hub, sha256, 4096), content=body())
    deadline = time.monotonic() + 60
    while not uploads(hub) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert uploads(hub) == [499]
    assert not list(hub.store.objects.path(sha256).parent.glob(f"{sha256}*"))


@pytest.mark.usefixtures("api")
def test_bytes_that_are_not_what_was_announced_are_refused(hub: HubServer) -> None:
    assert httpx2.put(upload_link(hub, "0" * 64, 4), content=b"four").status_code == 400
    assert upload_link(hub, "0" * 64, 4), "the object is still asked for"


def test_long_listings_come_in_pages(tmp_path: Path) -> None:
    with HubServer(tmp_path, page_size=3) as small_pages:
        api = HfApi(endpoint=small_pages.endpoint, token=small_pages.write_token)
        api.create_repo(REPO)
        api.create_branch(REPO, branch="a/b")
        files = [CommitOperationAdd(f"folder/{number}.txt", b"%d" % number) for number in range(7)]
        api.create_commit(REPO, files, commit_message="many", revision="a/b")
        paths = [entry.path for entry in api.list_repo_tree(REPO, recursive=True, revision="a/b")]
        assert paths == [".gitattributes", "folder", *(f"folder/{number}.txt" for number in range(7))]
        assert [request.route for request in small_pages.requests].count("tree") == 3
        assert [entry.path for entry in api.get_paths_info(REPO, ["folder/6.txt", "no"], revision="a/b")] == [
            "folder/6.txt"
        ]


def test_a_dataset_travels_like_a_model(api: HfApi, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(4096)
    api.create_repo("test-lab/pairs", repo_type="dataset")
    operation = CommitOperationAdd("data/pairs.parquet", content)
    made = api.create_commit("test-lab/pairs", [operation], commit_message="pairs", repo_type="dataset")
    path = api.hf_hub_download("test-lab/pairs", "data/pairs.parquet", repo_type="dataset", revision=made.oid)
    assert Path(path).read_bytes() == content
    api.delete_repo("test-lab/pairs", repo_type="dataset")
    assert not api.repo_exists("test-lab/pairs", repo_type="dataset")


def test_a_missing_file_is_told_from_a_missing_revision(api: HfApi) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "missing.json")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPO, ".gitattributes", revision="iter-9")


def test_an_unknown_call_is_named(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match=r"Not emulated: POST /api/models/.*/super-squash/main") as caught:
        api.super_squash_history(REPO)
    assert caught.value.response.status_code == 501


def test_a_fault_on_an_unknown_route_is_a_mistake_of_the_test(hub: HubServer) -> None:
    with pytest.raises(ValueError, match="no route is named 'comit'"):
        hub.faults.fail("comit")


def test_a_subprocess_needs_only_the_environment(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", 0)
    code = (
        f"import huggingface_hub as h; h.upload_folder(repo_id={REPO!r}, folder_path={str(folder)!r});"
        f"h.ModelCard.load({REPO!r}).validate(); print(h.snapshot_download({REPO!r}))"
    )
    environment = {**os.environ, **hub.environment}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert digests(Path(result.stdout.strip())) == digests(folder)


def test_object_ids_are_those_of_git() -> None:
    assert object_id("blob", b"hello world\n") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"
    assert tree_oids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}
