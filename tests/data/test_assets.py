"""Which file a recipe, profile or judge is read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.data import assets

WHERE = ("training/profiles", ".yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_not_taken_for_a_file_of_the_current_folder(here: Path) -> None:
    (here / "laptop").write_text("name: other\n", encoding="utf-8")
    assert assets.find("laptop", *WHERE) == assets.shipped() / "training/profiles/laptop.yaml"
    assert assets.find("./laptop", *WHERE) == Path("./laptop")


def test_a_path_beats_a_name(here: Path) -> None:
    (here / "laptop.yaml").write_text("name: mine\n", encoding="utf-8")
    (here / "mine").write_text("name: mine\n", encoding="utf-8")
    assert assets.find("laptop.yaml", *WHERE) == Path("laptop.yaml")
    assert assets.find("mine", *WHERE) == Path("mine")


def test_a_project_comes_first_and_a_run_is_none(here: Path) -> None:
    (here / assets.MARKER).touch()
    (here / "training/profiles").mkdir(parents=True)
    own = here / "training/profiles/laptop.yaml"
    own.write_text("name: mine\n", encoding="utf-8")
    assert assets.find("laptop", *WHERE) == own
    (here / assets.RUN).write_text("{}", encoding="utf-8")
    assert assets.find("laptop", *WHERE) == assets.shipped() / "training/profiles/laptop.yaml"
