"""Copies of outside files in a run: the file itself counts as long as it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.errors import RecipeError
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory

KEY = "release.facts"


def look(path: Path) -> Path:
    if not path.exists():
        raise RecipeError(f"{path} is not there.")
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


def test_the_file_outside_counts_as_long_as_it_is_there(run: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "facts.yaml"
    source.write_text("license: mit\n", encoding="utf-8")
    input_copies.keep_input(run, KEY, "facts.yaml", source)
    assert input_copies.find_input(run, KEY, "facts.yaml", lambda: look(source)) == source
    source.unlink()
    copy = input_copies.find_input(run, KEY, "facts.yaml", lambda: look(source))
    assert run.path in copy.parents
    assert copy.name == "facts.yaml"
    assert copy.read_text(encoding="utf-8") == "license: mit\n"


def test_a_copy_stands_in_for_the_name_it_was_read_under_alone(run: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "facts.yaml"
    source.write_text("license: mit\n", encoding="utf-8")
    input_copies.keep_input(run, KEY, "facts.yaml", source)
    with pytest.raises(RecipeError, match=r"other\.yaml is not there"):
        input_copies.find_input(run, KEY, "other.yaml", lambda: look(tmp_path / "other.yaml"))


def test_an_edited_file_replaces_its_copy(run: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "facts.yaml"
    for text in ("license: mit\n", "license: apache-2.0\n"):
        source.write_text(text, encoding="utf-8")
        input_copies.keep_input(run, KEY, "facts.yaml", source)
    copies = [path.read_text(encoding="utf-8") for path in run.path.rglob("facts.yaml")]
    assert copies == ["license: apache-2.0\n"]


def test_a_folder_is_copied_whole(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "pairs" / "data").mkdir(parents=True)
    (tmp_path / "pairs" / "data" / "train.jsonl").write_text("{}\n", encoding="utf-8")
    input_copies.keep_input(run, "pairs.offline", "pairs", tmp_path / "pairs")
    copy = input_copies.kept_input(run, "pairs.offline", "pairs")
    assert copy is not None
    assert (copy / "data" / "train.jsonl").read_text(encoding="utf-8") == "{}\n"


def test_a_changed_copy_is_found(run: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "facts.yaml"
    source.write_text("license: mit\n", encoding="utf-8")
    input_copies.keep_input(run, KEY, "facts.yaml", source)
    assert input_copies.damaged_inputs(run) == []
    copy = input_copies.kept_input(run, KEY, "facts.yaml")
    assert copy is not None
    copy.write_text("license: other\n", encoding="utf-8")
    assert input_copies.damaged_inputs(run) == [run.relative(copy)]
