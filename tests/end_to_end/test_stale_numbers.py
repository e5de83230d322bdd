"""What the commands say of a run whose recipe changed since its numbers were made, and of one that trained nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gshf_release.run.directory import RunDirectory
from tests.end_to_end.judged import Command

TOLD = "made with training.beta 0.1; the recipe now says 0.3"


@pytest.fixture
def changed(finished: RunDirectory, tmp_path: Path) -> Path:
    """The finished tiny run with another beta in its recipe."""
    shutil.copytree(finished.path, tmp_path / "changed")
    run = RunDirectory.open(tmp_path / "changed")
    training = run.recipe.training.model_copy(update={"beta": 0.3})
    run.record_recipe(run.recipe.model_copy(update={"training": training}))
    return run.path


def test_report_and_card_say_first_what_the_numbers_were_made_with(command: Command, changed: Path) -> None:
    report = command("report", changed)
    assert report.code == 0
    assert report.err.splitlines()[0].startswith("Stale: numbers were ")
    assert TOLD in report.err.splitlines()[0]
    assert any(TOLD in line for line in json.loads(command("report", changed, "--json").out)["notices"])
    assert TOLD in command("report", changed, "--markdown").out.splitlines()[0]
    card = command("card", changed)
    assert card.code == 0
    body = card.out.split("---\n", 2)[2].strip().splitlines()
    assert body[2].startswith("> **Stale: ")
    assert TOLD in body[2]
    assert card.err.startswith("Stale: ")


def test_publish_refuses_them_with_the_key_and_both_values(command: Command, changed: Path, tmp_path: Path) -> None:
    outcome = command("publish", changed, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert TOLD in outcome.line
    assert not (tmp_path / "out").exists()


def test_a_run_with_its_own_recipe_says_nothing(command: Command, finished: RunDirectory) -> None:
    report = command("report", finished.path)
    assert report.code == 0
    assert "Stale" not in report.err + report.out


def test_a_run_that_only_evaluates_has_no_card_and_no_release(
    command: Command, evaluate: Command, tmp_path: Path
) -> None:
    assert evaluate().code == 0
    for words in (("card", tmp_path / "run"), ("publish", tmp_path / "run", "--out", tmp_path / "out")):
        outcome = command(*words)
        assert outcome.code == 1
        assert "only evaluates" in outcome.line
        assert "it trained nothing, so it has no model card and no release" in outcome.line
        assert outcome.out == ""
    assert not (tmp_path / "out").exists()
