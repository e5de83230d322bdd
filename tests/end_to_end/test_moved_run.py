"""A run that was moved trains, evaluates, reports, publishes and verifies, although nothing it once read is there any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gshf_release.report.tables import reported_table
from tests import tiny
from tests.conftest import REPOSITORY, Outcome

EDITED = "Written with the template of a project."

REPORTED = """\
name: someone/example-model
source: https://example.com/card
benchmark: AlpacaEval 2
judge: somebody
baseline: gpt-4-1106-preview
length_unit: characters
rows:
  - {row: base, win rate: 1.0, LC win rate: 2.0, length: 100}
"""


@pytest.fixture
def workplace(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a template of its own and a recipe whose every file is named relative to it."""
    place = tmp_path / "here"
    place.mkdir()
    for name in ("tiny", "reward", "second-scorer"):
        shutil.copytree(tiny_folder / name, place / name)
    content = tiny.recipe(place)
    content["base"]["model"], content["reward"]["model"] = "tiny", "reward"
    content["prompts"]["source"] = "prompts.jsonl"
    content["evaluation"] |= {"prompts": "eval.jsonl", "second_scorer": {"model": "second-scorer"}}
    content["loop"]["iterations"] = 1
    content["release"] = {"facts": "facts.yaml", "datasets": ["judgments"]}
    (place / "facts.yaml").write_text(
        "license: apache-2.0\nbase_model: someone/example-model\nreported: reported.yaml\n"
        "ingredients: {base: {license: mit}, prompts: {license: mit}, evaluation_prompts: {license: mit}}\n",
        encoding="utf-8",
    )
    (place / "reported.yaml").write_text(REPORTED, encoding="utf-8")
    (place / ".gshf-release").touch()
    (place / "model_cards").mkdir()
    own = (REPOSITORY / "model_cards" / "model.md.j2").read_text(encoding="utf-8") + f"\n{EDITED}\n"
    (place / "model_cards" / "model.md.j2").write_text(own, encoding="utf-8")
    (place / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.chdir(place)
    return place


def test_a_moved_run_needs_no_file_outside_it(
    workplace: Path, command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reported_table(str(workplace / "reported.yaml")).rows
    trained = command("train", "recipe.yaml")
    assert trained.code == 0, trained.err
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    shutil.move(workplace / "runs" / "tiny", elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    shutil.rmtree(workplace)

    told = [
        command(*arguments)
        for arguments in (
            ("train", "moved/recipe.yaml", "--run", "moved"),
            ("eval", "moved"),
            ("report", "moved"),
            ("status", "moved"),
            ("publish", "moved", "--out", "out"),
            ("card", "moved"),
            ("verify", "moved", "--lineage", "--json"),
        )
    ]
    assert [outcome.code for outcome in told] == [0] * len(told), [outcome.err for outcome in told]
    assert json.loads(told[-1].out)["unfinished"] == 0
    assert "someone/example-model" in told[-2].out
    (card,) = (elsewhere / "out").glob("tiny/iter-1/README.md")
    assert EDITED in card.read_text(encoding="utf-8")
    journal = (elsewhere / "moved" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    finished = [json.loads(line)["stage"] for line in journal if '"finished"' in line]
    assert len(finished) == len(set(finished)), "nothing was done twice"


def test_a_run_that_never_kept_its_facts_is_evaluated_without_them(
    workplace: Path, command: Callable[..., Outcome]
) -> None:
    assert command("train", "recipe.yaml").code == 0
    for name in ("release.facts", "release.facts.reported"):
        shutil.rmtree(workplace / "runs" / "tiny" / "inputs" / name)
    (workplace / "facts.yaml").unlink()
    assert command("eval", "runs/tiny").code == 0
    outcome = command("publish", "runs/tiny", "--out", "out")
    assert outcome.code == 1
    assert "'facts.yaml' is neither a file nor a name in model_cards" in outcome.err
