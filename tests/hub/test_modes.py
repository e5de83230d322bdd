"""Parts of a release: the card alone, a pull request, a dry run; signed releases; what must appear nowhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from gshf_release.errors import GshfError, ReleaseError
from gshf_release.hub import client as hub_client
from gshf_release.hub import publish as releases
from gshf_release.hub.card_update import plan_card, publish_card
from gshf_release.hub.dry_run import plan
from gshf_release.hub.pull_request import propose
from gshf_release.release import manifest, secrets
from tests.conftest import REPOSITORY, Outcome
from tests.release import made
from tests.servers.hub import HubServer
from tests.servers.hub.store import Repository

MODEL = "tester/made"
UPLOADS = {"lfs_batch", "lfs_put", "lfs_verify", "put_part"}


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.write_token)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return made.releases(tmp_path / "release")


def parts(release: Path, repository: str = MODEL) -> list[releases.FolderCommit]:
    return releases.parts(release, repository)


def publish(api: HfApi, release: Path) -> list[str]:
    return releases.publish(api, parts(release), public=False, report=lambda line: None)


def stored(hub: HubServer, repository: str = MODEL) -> Repository:
    found = hub.store.find("model", repository)
    assert found is not None
    return found


def correct_the_card(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace("# Made\n", "# Made better\n"), encoding="utf-8")
    manifest.list_again(folder)


# -- the card alone ------------------------------------------------------------------------------------------


def test_a_corrected_card_sends_no_weights_and_moves_no_tag(hub: HubServer, api: HfApi, release: Path) -> None:
    commits = publish(api, release)
    correct_the_card(release / "made" / "iter-2")
    before = len(hub.requests)
    publish_card(api, parts(release), report=lambda line: None)
    assert not UPLOADS & {request.route for request in hub.requests[before:]}
    repository = stored(hub)
    assert repository.tags == {"iter-1": commits[0], "iter-2": commits[1]}
    assert next(commit.title for commit in repository.history("main")) == "Release card of iter-2"
    assert b"# Made better" in hub.store.read(repository.resolve("main").files["README.md"])
    publish_card(api, parts(release), report=lambda line: None)
    assert len(list(repository.history("main"))) == 4


def test_other_weights_are_not_a_corrected_card(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    folder = release / "made" / "iter-2"
    made.write_json(folder / "generation_config.json", {"eos_token_id": [2], "top_p": 0.9})
    manifest.list_again(folder)
    with pytest.raises(ReleaseError, match=r"generation_config\.json differs .* Publish without --only card"):
        publish_card(api, parts(release), report=lambda line: None)


def test_a_card_of_a_repository_that_is_not_there_is_refused(hub: HubServer, api: HfApi, release: Path) -> None:
    with pytest.raises(GshfError, match="404"):
        publish_card(api, parts(release), report=lambda line: None)


# -- a pull request ------------------------------------------------------------------------------------------


def test_a_pull_request_has_a_commit_an_iteration_and_main_stays(hub: HubServer, api: HfApi, release: Path) -> None:
    api.create_repo(MODEL)
    (address,) = propose(api, parts(release), report=lambda line: None)
    repository = stored(hub)
    assert address == f"{hub.endpoint}/{MODEL}/discussions/1"
    titles = [commit.title for commit in repository.history("refs/pr/1")]
    assert titles == ["Release iter-2", "Release iter-1", "initial commit"]
    assert len(list(repository.history("main"))) == 1
    assert repository.tags == {}


def test_after_the_merge_publishing_sets_the_tags(hub: HubServer, api: HfApi, release: Path) -> None:
    api.create_repo(MODEL)
    propose(api, parts(release), report=lambda line: None)
    stored(hub).merge("refs/pr/1")
    publish(api, release)
    for tag in ("iter-1", "iter-2"):
        files = stored(hub).resolve(tag).files
        listed = manifest.read_release_manifest(release / "made" / tag)["files"]
        assert all(files[name].sha256 == entry["sha256"] for name, entry in listed.items())


@pytest.mark.parametrize("fault", ["lost", "503", "killed"])
def test_a_proposal_that_failed_goes_on_in_the_same_pull_request(
    hub: HubServer, api: HfApi, release: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    api.create_repo(MODEL)
    if fault == "lost":
        hub.faults.lose_answer("commit")
    elif fault == "503":
        hub.faults.fail("commit")
    else:
        propose(api, parts(release)[:1], report=lambda line: None)
    propose(api, parts(release), report=lambda line: None)
    propose(api, parts(release), report=lambda line: None)
    assert list(stored(hub).pulls) == ["refs/pr/1"]
    assert len(list(stored(hub).history("refs/pr/1"))) == 3


def test_others_may_be_proposed_to_but_not_written_to(hub: HubServer, api: HfApi) -> None:
    with pytest.raises(ReleaseError, match=r"may not write to 'somebody'\. .* To propose the release to others: --pr"):
        hub_client.check_access(api, "somebody/made")
    hub_client.check_access(api, "somebody/made", pull_request=True)


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ({"scoped": [{"entity": {"name": "tester"}, "permissions": ["repo.write"]}]}, True),
        ({"scoped": [{"entity": {"name": MODEL}, "permissions": ["repo.content.read", "repo.write"]}]}, True),
        ({"scoped": [{"entity": {"name": "tester"}, "permissions": ["repo.content.read"]}]}, False),
        ({"scoped": [{"entity": {"name": "other"}, "permissions": ["repo.write"]}], "global": []}, False),
    ],
)
def test_a_fine_grained_token_must_name_the_repository_or_its_owner(
    api: HfApi, grants: dict[str, object], allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"name": "tester", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": grants}}}
    monkeypatch.setattr(api, "whoami", lambda: user)
    if allowed:
        hub_client.check_access(api, MODEL)
    else:
        with pytest.raises(ReleaseError, match=r"The fine-grained token may not write to 'tester/made'"):
            hub_client.check_access(api, MODEL)


# -- a dry run -----------------------------------------------------------------------------------------------


def test_a_dry_run_tells_sizes_tags_and_the_cards_change(hub: HubServer, api: HfApi, release: Path) -> None:
    first = plan(api, parts(release)[1])
    assert first.tag == "to make"
    assert first.tag_message == f"manifest sha256 {manifest.digest(release / 'made' / 'iter-2')}"
    folder = release / "made" / "iter-2"
    assert first.sent == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    publish(api, release)
    assert (plan(api, parts(release)[1]).tag, plan(api, parts(release)[1]).sent) == ("there", 0)
    correct_the_card(folder)
    changed = plan(api, parts(release)[1])
    assert "-# Made\n+# Made better" in changed.card
    assert {entry.path for entry in changed.entries if entry.status == "changed"} == {"README.md", "manifest.json"}


def test_a_dry_run_names_what_would_be_removed(hub: HubServer, api: HfApi, release: Path) -> None:
    publish(api, release)
    folder = release / "made" / "iter-2"
    (folder / "tokenizer.json").unlink()
    manifest.list_again(folder)
    assert [entry.path for entry in plan(api, parts(release)[1]).entries if entry.status == "removed"] == [
        "tokenizer.json"
    ]


def test_a_dry_run_of_the_card_alone_compares_with_main_and_refuses_what_publishing_would(
    hub: HubServer, api: HfApi, release: Path
) -> None:
    publish(api, release)
    correct_the_card(release / "made" / "iter-2")
    (found,) = plan_card(api, parts(release))
    assert {entry.path for entry in found.entries if entry.status != "unchanged"} == {"README.md", "manifest.json"}
    assert (found.part.tag, found.tag) == (None, "")
    made.write_json(release / "made" / "iter-2" / "generation_config.json", {"eos_token_id": [2], "top_p": 0.9})
    manifest.list_again(release / "made" / "iter-2")
    with pytest.raises(ReleaseError, match=r"generation_config\.json differs .* Publish without --only card"):
        plan_card(api, parts(release))


# -- canaries ------------------------------------------------------------------------------------------------


def test_planted_secrets_appear_nowhere(hub: HubServer, tmp_path: Path, release: Path) -> None:
    """A checkpoint is published while the environment, netrc, a file beside it and the server's errors hold secrets."""
    environment, password = "env-" + "Canary9" * 4, "netrc-" + "Canary8" * 4
    echoed = "hf_" + "Canary7" * 5
    checkpoint = made.checkpoint(tmp_path / "checkpoint")
    (checkpoint / "training_args.bin").write_text(f"hub_token={echoed}", encoding="utf-8")
    facts = tmp_path / "facts.yaml"
    facts.write_text("license: mit\ntemplate_change: made by hand\n", encoding="utf-8")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {password}\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    variables = os.environ | hub.environment | {"OPENAI_API_KEY": environment, "NETRC": str(tmp_path / "netrc")}
    hub.faults.fail(
        "commit", times=9, status=500, message=f"debug: {echoed} {environment} {password} {hub.write_token}"
    )
    command = [sys.executable, "-m", "gshf_release", "publish", checkpoint, "--to", MODEL, "--facts", facts]
    outputs = []
    for debug in ("1", ""):
        run = subprocess.run(
            [str(part) for part in command],
            env=variables | {"GSHF_DEBUG": debug, "PYTHONPATH": str(REPOSITORY)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        outputs += [run.stdout, run.stderr]
        assert run.returncode == (4 if debug else 0), run.stderr
        hub.faults.clear()
    repository = stored(hub)
    contents = [hub.store.read(file).decode("latin-1") for file in repository.resolve("v1").files.values()]
    texts = [*outputs, *contents, *(commit.title + commit.description for commit in repository.history("main"))]
    for canary in (environment, password, echoed, hub.write_token):
        assert not any(canary in text for text in texts)
    assert "[secret removed]" in outputs[1]
    assert not list(tmp_path.glob(".gshf-release-*")), "nothing is left behind"


def test_a_secret_in_the_card_is_not_sent(hub: HubServer, release: Path, command: Callable[..., Outcome]) -> None:
    path = release / "made" / "iter-1" / "README.md"
    path.write_text(path.read_text(encoding="utf-8") + "system prompt: hf_" + "Canary6" * 5 + "\n", encoding="utf-8")
    manifest.list_again(path.parent)
    with pytest.raises(ReleaseError, match=r"README\.md, line \d+: a Hugging Face token\."):
        parts(release)


@pytest.mark.parametrize("kind", ["a Hugging Face token", secrets.OWN])
def test_a_secret_in_a_prompt_is_not_sent_and_not_repeated(
    hub: HubServer, release: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "prompt-" + "Canary3" * 5 if kind == secrets.OWN else "hf_" + "Canary3" * 5
    if kind == secrets.OWN:
        monkeypatch.setenv("MY_SERVICE_TOKEN", canary)
    secrets._known.cache_clear()
    folder = made.release(release / "made-preferences" / "main", repository=f"{MODEL}-preferences")
    rows = [{"prompt": [{"role": "user", "content": f"log in with {canary}, please"}]}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    manifest.list_again(folder)
    with pytest.raises(ReleaseError, match=rf"^train\.parquet.*: {re.escape(kind)}") as caught:
        parts(release)
    assert canary not in str(caught.value)
    assert not hub.requests


def test_a_declared_false_positive_is_sent_and_its_reason_shown(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    declared = [{"text": "/home/" + "user", "reason": "an example in the card"}]
    folder = made.release(tmp_path / "release" / "made" / "iter-1", allowed_findings=declared)
    path = folder / "README.md"
    path.write_text(path.read_text(encoding="utf-8") + "\nexport HF_HOME=/home/" + "user/cache\n", encoding="utf-8")
    manifest.list_again(folder)
    assert len(parts(tmp_path / "release")) == 1
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["allowed_findings"] == declared
