"""The tables of docs/learning.md that come from kept runs are what `report` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.report.methods import label, method_table
from gshf_release.report.seeds import read_seeds, seed_folders
from gshf_release.report.tables import markdown
from gshf_release.run.directory import RunDirectory
from tests.conftest import REPOSITORY

KEPT = REPOSITORY / "docs" / "learning"
DOCUMENT = REPOSITORY / "docs" / "learning.md"


def methods() -> list[Path]:
    """Return the kept parents, as the document's command names them."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith("    gshf-release report docs/learning/")]
    return [REPOSITORY / word for word in command.split() if word.startswith("docs/learning/") and "." not in word]


def test_the_document_shows_what_report_prints() -> None:
    parents = methods()
    assert {parent.name for parent in parents} == {path.name for path in KEPT.iterdir() if path.is_dir()}
    named = {label(RunDirectory.open(next(iter(seed_folders(parent).values()))).recipe): parent for parent in parents}
    assert len(named) == len(parents)
    table = method_table({name: read_seeds(seed_folders(parent)) for name, parent in named.items()})
    assert markdown(table) in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "folder", sorted(KEPT.glob("*/seed-*")), ids=lambda folder: f"{folder.parent.name}-{folder.name}"
)
def test_a_kept_run_has_the_seed_of_its_folder(folder: Path) -> None:
    assert RunDirectory.open(folder).recipe.seed == int(folder.name.removeprefix("seed-"))
