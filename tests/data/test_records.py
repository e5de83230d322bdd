"""Rows in Parquet: what goes in comes out, and a damaged file is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gshf_release.data import records
from gshf_release.data.records import (
    Contrast,
    ContrastScore,
    Judgment,
    LogRatio,
    Message,
    Pair,
    PreferenceScore,
    Prompt,
    ReferenceLogProbability,
    Row,
    RuleCheck,
    Sample,
    Score,
    Spread,
    Trace,
    Winner,
)
from gshf_release.errors import DataError

TURNS = [Message(role="system", content="Be brief."), Message(role="user", content="Ünïcode 🎉\n\u2028?")]
EXAMPLES: list[Row] = [
    Prompt.of(TURNS),
    Sample("p", 3, "T=0.7", 0.7, [1, 2], [5, 2], "text", "stop", "a" * 64),
    Score("p", 0, -1.5, "b" * 64),
    Score("p", 0, -1.5, "b" * 64, 0.25),
    Pair("p", 1, [1], [2, 3], [4], "good", "bad", 0, 3, 1.0, -1.0, "c" * 64),
    Pair("p", 1, [1], [2, 3], [4], "good", "bad", 0, 3, 1.0, -1.0, "c" * 64, 0.5, 0.25),
    RuleCheck("p", 0, "T=0.7", "no-commas", True, False),
    LogRatio("p", 0, -3.0, -4.0),
    Winner("p", 1, [1], [2, 3], "good", 0, 1.5, "c" * 64),
    ReferenceLogProbability("p", -3.25, -4.5, "d" * 64),
    Contrast("p", "cut", TURNS, "better", "worse", True),
    ContrastScore("p", "cut", 0.25, -0.25),
    PreferenceScore("p", 0.25, -0.25, 12, 9),
    Trace("p", 1, 12, -30.0, -31.0, 20.0, 0.5, 0.4, 1e-9),
    Spread("p", 8, 2, None),
    Judgment("p", "greedy", 0.5, 1.0, 1.0, "stand-in"),
]


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: type(row).__name__)
def test_a_row_survives_parquet(tmp_path: Path, row: Any) -> None:
    type(row).write([row, row], tmp_path / "rows.parquet")
    assert type(row).read(tmp_path / "rows.parquet") == [row, row]


def test_every_row_type_has_an_example() -> None:
    declared = {kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, Row)}
    assert {type(row) for row in EXAMPLES} == declared - {Row}


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: type(row).__name__)
def test_equal_rows_give_equal_bytes(tmp_path: Path, row: Any) -> None:
    for name in ("a.parquet", "b.parquet"):
        type(row).write([dataclasses.replace(row)], tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    Pair.write([], tmp_path / "rows.parquet")
    assert Pair.read(tmp_path / "rows.parquet") == []


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    for number in range(3):
        Score.write([Score("p", number, 0.0, "s")], tmp_path / f"{number}.parquet")
    paths = [tmp_path / f"{number}.parquet" for number in (2, 0, 1)]
    assert [score.sample_index for score in Score.read(*paths)] == [2, 0, 1]


def test_a_part_of_a_file_is_read_alone(tmp_path: Path) -> None:
    rows = [Score(f"p{number}", 0, number, "s") for number in range(5)]
    Score.write(rows, tmp_path / "f.parquet")
    assert Score.read_part(tmp_path / "f.parquet", 1, 3) == rows[1:3]
    assert Score.read_part(tmp_path / "f.parquet", 4, 8) == rows[4:]
    assert Score.read_part(tmp_path / "f.parquet", 8, 12) == []


@pytest.mark.parametrize(("wanted", "kept"), [({"b", "a", "x"}, [0, 1, 3]), (set(), [])])
def test_rows_are_read_by_what_a_column_holds(tmp_path: Path, wanted: set[str], kept: list[int]) -> None:
    rows = [Score(name, 0, number, "s") for number, name in enumerate("abca")]
    Score.write(rows, tmp_path / "f.parquet")
    assert Score.read_where(tmp_path / "f.parquet", "prompt_id", wanted) == [rows[number] for number in kept]


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "seed=1").mkdir()
    path = tmp_path / "seed=1" / "rows.parquet"
    Score.write([Score("p", 0, 0.0, "s")], path)
    assert Score.read(path) == [Score("p", 0, 0.0, "s")]


@given(
    rewards=st.lists(st.floats(allow_nan=False), max_size=20),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_float_and_text_survive(tmp_path: Path, rewards: list[float], text: str) -> None:
    rows = [Score(text, index, reward, text) for index, reward in enumerate(rewards)]
    Score.write(rows, tmp_path / "rows.parquet")
    assert Score.read(tmp_path / "rows.parquet") == rows


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "rows.parquet"
    Score.write([Score("p", index, 0.5, "s") for index in range(100)], path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"rows\.parquet is not a readable Parquet file"):
        Score.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet"):
        Score.read(tmp_path / "gone.parquet")


def test_a_file_without_a_column_that_has_a_default_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    Score.write([Score("p", 0, 0.5, "s", 0.1)], path)
    pq.write_table(pq.read_table(path).drop(["deviation"]), path)
    assert Score.read(path) == [Score("p", 0, 0.5, "s")]
    pq.write_table(pq.read_table(path).drop(["reward"]), path)
    with pytest.raises(DataError, match="has the columns"):
        Score.read(path)


def test_a_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    Score.write([Score("p", 0, 0.5, "s")], path)
    with pytest.raises(DataError, match="has the columns"):
        Pair.read(path)


def test_a_missing_value_is_not_written_silently(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(ValueError, match="non-nullable"):
        Score.write([Score("p", 0, None, "s")], path)  # type: ignore[arg-type]


def test_the_same_messages_have_the_same_id() -> None:
    assert Prompt.of(TURNS).prompt_id == Prompt.of(list(TURNS)).prompt_id
    assert Prompt.of(TURNS).prompt_id != Prompt.of(TURNS[1:]).prompt_id
    assert len(Prompt.of(TURNS).prompt_id) == 16


def test_a_long_file_is_written_and_scanned_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Prompt.of([{"role": "user", "content": f"question {number}"}]) for number in range(10)]
    held = []

    def drawn() -> Iterator[Prompt]:
        for row in rows:
            held.append(row)
            yield row

    monkeypatch.setattr(records, "GROUP", 4)
    path = tmp_path / "prompts.parquet"
    Prompt.write(drawn(), path)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert Prompt.read(path) == rows == held
    scanned = Prompt.scan(path)
    assert next(scanned) == rows[0]
    assert list(scanned) == rows[1:]
    Prompt.write([], path)
    assert list(Prompt.scan(path)) == Prompt.read(path) == []


def test_a_scan_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(Prompt.scan(path))
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError, match="has the columns"):
        list(Prompt.scan(path))
