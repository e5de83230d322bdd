"""A run from elsewhere may hold links: nothing that they point to is written or removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.errors import RunError
from gshf_release.run.checkpoint_layout import CheckpointLayout, lay_out
from gshf_release.run.directory import RunDirectory, write_text
from gshf_release.run.pruning import prune
from tests.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    folder = tmp_path / "treasure"
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis" / "chapter.txt").write_text("years\n", encoding="utf-8")
    (folder / "bashrc").write_text("true\n", encoding="utf-8")
    return folder


def intact(folder: Path) -> bool:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()} == {
        "chapter.txt": "years\n",
        "bashrc": "true\n",
    }


@pytest.mark.parametrize(
    "place",
    [
        "journal.jsonl",
        "results.md",
        ".results.json.partial",
        ".locks/results.short",
        "results/base.json",
        "profile.yaml",
    ],
)
@pytest.mark.parametrize("words", [("eval",), ("report",), ("card",), ("verify",), ("status",)])
def test_no_command_follows_a_link_in_place_of_a_small_file(
    copy: RunDirectory, command: Command, treasure: Path, place: str, words: tuple[str, ...]
) -> None:
    (copy.path / place).parent.mkdir(exist_ok=True)
    (copy.path / place).unlink(missing_ok=True)
    (copy.path / place).symlink_to(treasure / "bashrc")
    outcome = command(words[0], copy.path, *words[1:])
    assert outcome.code == 1
    assert f"{place} is a link" in outcome.line
    assert intact(treasure)


def test_a_copy_in_a_linked_folder_removes_nothing(copy: RunDirectory, command: Command, treasure: Path) -> None:
    (copy.path / "inputs").mkdir(exist_ok=True)
    (copy.path / "inputs" / "judge.00000000").symlink_to(treasure)
    assert command("eval", copy.path).code == 1
    assert intact(treasure)


def test_what_is_written_beside_a_file_is_no_link(tmp_path: Path, treasure: Path) -> None:
    (tmp_path / ".manifest.json.partial").symlink_to(treasure / "bashrc")
    write_text(tmp_path / "manifest.json", "{}")
    assert (tmp_path / "manifest.json").read_text(encoding="utf-8") == "{}"
    assert intact(treasure)


def test_checkpoints_behind_a_link_stay(tmp_path: Path, treasure: Path) -> None:
    (treasure / "thesis").rename(treasure / "checkpoint-1")
    (tmp_path / ".scratch").symlink_to(treasure)
    with pytest.raises(RunError, match="is a link"):
        lay_out(tmp_path / ".scratch", CheckpointLayout("none", 1))
    assert intact(treasure)


def test_prune_removes_nothing_outside_the_run(copy: RunDirectory, treasure: Path) -> None:
    stage = next(stage for stage in copy.plan if stage.name.startswith("iteration-1") and "model" in stage.outputs)
    folder = copy.path / stage.name
    folder.rename(treasure / "stage")
    folder.symlink_to(treasure / "stage")
    with pytest.raises(RunError, match="lies outside the run"):
        prune(copy, [(stage.name, "model")])
    assert (treasure / "stage" / "model").is_dir()
