"""The borrowed files: where they are found, what is refused, what is said about a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.data import load, read_difficulty, read_gamed

GAMED = "model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GSHF_BENCHMARK_DATA", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    lines = ["a,0,0.25,-1.5,0.5,False", "a,1,0.75,1.5,-0.5,False", "b,0,1.0,0.1,0.5,False", "b,1,0.0,0.2,-0.5,False"]
    (path / "df_gamed.csv").write_text(GAMED + "\n".join(lines) + "\n", encoding="utf-8")
    (path / "instruction_difficulty.csv").write_text("index,instruction_difficulty\n0,0.5\n1,-0.5\n", encoding="utf-8")
    return path


def test_columns_are_read_by_name(folder: Path) -> None:
    gamed, difficulty = read_gamed(folder / "df_gamed.csv")
    assert gamed.preference.tolist() == [0.25, 0.75, 1.0, 0.0]
    assert gamed.length_difference.tolist() == [-1.5, 1.5, 0.1, 0.2]
    assert difficulty.tolist() == read_difficulty(folder / "instruction_difficulty.csv").tolist() == [0.5, -0.5]


def test_files_with_another_hash_are_refused_unless_allowed(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"df_gamed\.csv has the sha256 .* or use it as it is with --allow-unverified-data"
    ):
        load(folder)
    found = load(folder, allow_unverified=True)
    assert found.label == "unverified: df_gamed.csv, instruction_difficulty.csv"
    assert found.warnings == ()


def test_the_variable_names_a_folder_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(folder))
    assert load(allow_unverified=True).gamed is not None


def test_files_that_nobody_has_are_no_error() -> None:
    found = load()
    assert found.label == "missing"
    assert "df_gamed.csv" in found.missing
    assert "HF_HUB_OFFLINE forbids the network" in found.missing


def test_difficulties_of_another_fit_are_a_warning(folder: Path) -> None:
    (folder / "instruction_difficulty.csv").write_text("index,instruction_difficulty\n0,0.5\n1,0.5\n", encoding="utf-8")
    assert "they come from two fits" in load(folder, allow_unverified=True).warnings[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no column 'preference'"),
        (GAMED, "has no rows"),
        (GAMED + "a,0,x,1,1,False\n", r"df_gamed\.csv:2: preference 'x' is no number"),
        (GAMED + "a,1,0.5,1,1,False\n", "must count from 0 without gaps"),
        (GAMED + "a,0\n", "is no number"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "df_gamed.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_gamed(path)
