"""The commands of Hugging Face's own client, against what was published: each tag byte by byte, and their own check."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release.data.hashing import tree
from gshf_release.hub import publish as releases
from tests.release import made
from tests.release.blocks import shell
from tests.servers.hub import HubServer

pytestmark = pytest.mark.slow
MODEL, PAIRS = "tester/made", "tester/made-preferences"


@pytest.fixture
def release(hub: HubServer, tmp_path: Path) -> Path:
    """Return a release of two iterations and a data set that is on the Hub."""
    pytest.importorskip("huggingface_hub.cli.hf")
    root = made.releases(tmp_path / "release")
    made.release(root / "made-preferences" / "main", repository=PAIRS)
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    wanted = releases.parts(root, MODEL)
    releases.publish(api, wanted, public=False, report=lambda line: None, collection=MODEL)
    return root


@pytest.mark.parametrize(
    ("target", "part"),
    [
        (f"{MODEL} --revision iter-1", "made/iter-1"),
        (f"{MODEL} --revision iter-2", "made/iter-2"),
        (f"{PAIRS} --repo-type dataset", "made-preferences/main"),
    ],
)
def test_hf_download_gives_the_bytes_and_hf_cache_verify_agrees(
    hub: HubServer, release: Path, tmp_path: Path, target: str, part: str
) -> None:
    strict = "--local-dir copy --fail-on-missing-files --fail-on-extra-files"
    code = f"hf download {target} --local-dir copy\nhf cache verify {target} {strict}"
    shell(code, tmp_path, hub.environment)
    copy = shutil.copytree(tmp_path / "copy", tmp_path / "clean", ignore=shutil.ignore_patterns(".cache", ".git*"))
    assert tree(copy) == tree(release / part)
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AssertionError, match="Verification failed"):
        shell(f"hf cache verify {target} --local-dir copy", tmp_path, hub.environment)


def test_hf_shows_commits_tags_and_the_collection(hub: HubServer, release: Path, tmp_path: Path) -> None:
    model = hub.store.find("model", MODEL)
    assert model is not None
    (collection,) = hub.store.collections
    code = f"""
    hf repos tag list {MODEL} --json > tags.json
    hf models info {MODEL} --revision iter-1 --json > info.json
    hf collections info {collection} --json > collection.json
    """
    shell(code, tmp_path, hub.environment)
    tags, info, shown = ((tmp_path / f"{name}.json").read_text() for name in ("tags", "info", "collection"))
    assert "iter-1" in tags
    assert "iter-2" in tags
    assert json.loads(info)["sha"] == model.tags["iter-1"]
    assert all(f'"{name}"' in shown for name in (MODEL, PAIRS))
