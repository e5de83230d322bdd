"""A dry run shows what would be sent and leaves the run as it is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gshf_release.data.hashing import tree
from gshf_release.run.directory import RunDirectory
from tests.conftest import Outcome
from tests.servers.hub import HubServer


def names(run: RunDirectory) -> set[str]:
    return {path.name for path in run.path.parent.iterdir()}


@pytest.mark.parametrize("repository", ["tester/tiny", "tester/another"])
def test_a_dry_run_changes_nothing_in_the_run(
    command: Callable[..., Outcome],
    copy: RunDirectory,
    hub: HubServer,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    before, beside = tree(copy.path), names(copy)
    outcome = command("publish", copy.path, "--to", repository, "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    assert {row["repository"] for row in json.loads(outcome.out)["dry_run"]} == {repository, f"{repository}-GGUF"}
    assert tree(copy.path) == before
    assert names(copy) == beside
    assert not [request for request in hub.requests if request.method not in ("GET", "HEAD")]


def test_a_dry_run_of_what_is_not_evaluated_names_the_run_itself(
    command: Callable[..., Outcome], copy: RunDirectory
) -> None:
    (copy.path / "iteration-1" / "test" / "judgments" / "manifest.json").unlink()
    outcome = command("publish", copy.path, "--to", "tester/tiny", "--dry-run")
    assert outcome.code == 1
    assert f"gshf-release eval {copy.path}" in outcome.line


def test_a_dry_run_of_a_pull_request_promises_no_tags(
    command: Callable[..., Outcome], copy: RunDirectory, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    outcome = command("publish", copy.path, "--to", "tester/tiny", "--pr", "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tags"] == []


def test_what_out_wrote_is_no_run(command: Callable[..., Outcome], released: RunDirectory) -> None:
    outcome = command("publish", released.path / "release", "--to", "tester/tiny")
    assert (outcome.code, "is a release that --out wrote" in outcome.line) == (1, True)
    assert "publish RUN --to OWNER/NAME" in outcome.line
