"""publish FOLDER: a checkpoint of another tool as one release, or refused with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gshf_release.data.results import write_cells
from gshf_release.release import manifest
from gshf_release.release.verify_folder import verify_folder
from tests.conftest import Outcome
from tests.release import made
from tests.release.test_card import POISON, structure
from tests.servers.hub import HubServer

Publish = Callable[..., Outcome]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = made.checkpoint(tmp_path / "checkpoint-500")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    made.write_json(folder / "config.json", config | {"_name_or_path": "/home/" + "somebody/base"})
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", "notes.py"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: made by hand\n", encoding="utf-8")
    return tmp_path / "facts.yaml"


def test_a_checkpoint_becomes_a_release_without_its_training(
    checkpoint: Path, facts: Path, tmp_path: Path, command: Publish
) -> None:
    write_cells(made.cells(), tmp_path / "results.json")
    options = ("--facts", facts, "--results", tmp_path / "results.json", "--out", tmp_path / "out")
    outcome = command("publish", checkpoint, *options)
    assert outcome.code == 0, outcome.err
    assert "Left out: notes.py, optimizer.pt, trainer_state.json, training_args.bin." in outcome.err
    folder = tmp_path / "out" / "checkpoint-500" / "v1"
    assert verify_folder(folder).numbers == 5, "three values and two n in the card's table"
    document = manifest.read_release_manifest(folder)
    assert document["provenance"] == "unknown"
    assert document["template_change"] == "made by hand"
    assert "_name_or_path" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "_name_or_path" in json.loads((checkpoint / "config.json").read_text(encoding="utf-8")), "the source stays"


def test_a_checkpoint_is_pushed_with_one_tag(hub: HubServer, checkpoint: Path, facts: Path, command: Publish) -> None:
    import huggingface_hub.constants as client

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "ENDPOINT", hub.endpoint)
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        arguments = ("publish", checkpoint, "--to", "tester/made", "--facts", facts)
        assert command(*arguments).out == "Published tester/made@v1 (private unless it existed).\n"
        assert command(*arguments).code == 0, "the same command again"
    repository = hub.store.find("model", "tester/made")
    assert repository is not None
    assert list(repository.tags) == ["v1"]
    assert len(list(repository.history("main"))) == 2


@pytest.mark.parametrize("same", [True, False])
def test_the_template_is_compared_with_the_base_models_on_the_hub(
    hub: HubServer, checkpoint: Path, tmp_path: Path, command: Publish, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    api.create_repo("tester/base")
    template = made.TEMPLATE if same else made.TEMPLATE.replace("content", "role")
    api.upload_file(path_or_fileobj=template.encode(), path_in_repo="chat_template.jinja", repo_id="tester/base")
    (tmp_path / "facts.yaml").write_text("license: mit\nbase_model: tester/base\n", encoding="utf-8")
    outcome = command("publish", checkpoint, "--facts", tmp_path / "facts.yaml", "--out", tmp_path / "out", "--json")
    if same:
        assert outcome.code == 0, outcome.err
    else:
        assert outcome.code == 1
        assert "The chat template differs from the base model's from character" in outcome.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base_model: a/b\n", "A release needs a licence"),
        ("license: nope\n", "is no licence identifier"),
        ("license: mit\n", "Without base_model among the facts"),
        ("license: mit\ncolour: red\n", "unknown key 'colour'"),
    ],
)
def test_facts_that_do_not_suffice_are_refused(
    checkpoint: Path, tmp_path: Path, command: Publish, text: str, reason: str
) -> None:
    (tmp_path / "facts.yaml").write_text(text, encoding="utf-8")
    outcome = command("publish", checkpoint, "--facts", tmp_path / "facts.yaml", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert reason in outcome.line
    assert not (tmp_path / "out" / "checkpoint-500" / "v1").exists(), "no half of a release is left"


def test_pickled_weights_are_refused(checkpoint: Path, facts: Path, tmp_path: Path, command: Publish) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    outcome = command("publish", checkpoint, "--facts", facts, "--out", tmp_path / "out")
    assert "holds no safetensors weights" in outcome.line


def test_a_checkpoint_needs_facts(checkpoint: Path, tmp_path: Path, command: Publish) -> None:
    assert command("publish", checkpoint, "--out", tmp_path / "out").code == 2


@pytest.mark.parametrize("tag", ["../v1", 'v1")\nimport os', "v 1", "-v1", "a..b", "v1.lock", "`id`", "{{ 7 }}"])
def test_a_tag_that_could_leave_its_place_is_refused(
    hub: HubServer, checkpoint: Path, facts: Path, command: Publish, tag: str
) -> None:
    outcome = command("publish", checkpoint, "--to", "tester/other", "--facts", facts, f"--tag={tag}")
    assert (outcome.code, "cannot be a tag" in outcome.line) == (1, True)
    assert not hub.requests


@pytest.mark.parametrize("name", ['a")', "a`b", "a|b", "<b>"])
def test_a_folders_name_that_could_leave_its_place_is_refused(
    checkpoint: Path, facts: Path, tmp_path: Path, command: Publish, name: str
) -> None:
    outcome = command("publish", checkpoint.rename(tmp_path / name), "--out", tmp_path / "out", "--facts", facts)
    assert (outcome.code, "cannot be the name of a release" in outcome.line) == (1, True)
    assert not (tmp_path / "out").exists()


def test_poisoned_facts_and_results_stay_text(checkpoint: Path, tmp_path: Path, command: Publish) -> None:
    def card(name: str, text: str) -> str:
        found = {"license": "mit", "template_change": "made by hand", "title": text, "description": text}
        (tmp_path / "facts.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
        cells = [cell.model_copy(update={"row": text, "note": text}) for cell in made.cells()]
        write_cells(cells, tmp_path / "results.json")
        out = tmp_path / name
        more = ["--facts", tmp_path / "facts.yaml", "--results", tmp_path / "results.json"]
        assert command("publish", checkpoint, "--out", out, *more).code == 0
        return (out / checkpoint.name / "v1" / "README.md").read_text(encoding="utf-8")

    clean, poisoned = card("clean", "x"), card("poisoned", POISON)
    assert structure(poisoned) == structure(clean)
    assert poisoned.partition("\n---\n\n")[0] == clean.partition("\n---\n\n")[0], "the metadata are the same"


def test_a_part_that_a_checkpoint_does_not_have_is_a_usage_error(
    checkpoint: Path, facts: Path, command: Publish
) -> None:
    arguments = ("publish", checkpoint, "--facts", facts, "--to", "tester/made", "--dry-run")
    outcome = command(*arguments, "--only", "quantizations")
    assert outcome.code == 2
    assert "--only quantizations is for a run" in outcome.err
    assert "does not go with --pr" in command(*arguments, "--only", "card", "--pr").err
