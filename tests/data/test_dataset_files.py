"""Users' data files: every form read, a bad row named by file and line, skipped and counted on request."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gshf_release.data.dataset_files import data_files, read_rows
from gshf_release.errors import DataError

ROWS = [{"n": 1, "text": "a\u2028b"}, {"n": 2, "text": "c"}]


def number(row: dict[str, Any]) -> int:
    if not isinstance(row.get("n"), int):
        raise ValueError("expected a number under 'n'")
    return int(row["n"])


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path) -> Path:
    """Write the rows in the form that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = lines(ROWS) if ".jsonl" in path.name else json.dumps(ROWS)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet"])
def test_every_form_gives_the_same_rows_with_their_places(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    rows = read_rows(path, number, example="{}")
    assert rows.values == [1, 2]
    separator = ":" if ".jsonl" in name else " row "
    assert rows.places == [f"{path}{separator}1", f"{path}{separator}2"]
    assert rows.bad == []


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n\n{"n": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:3: expected a number under 'n'\. A row looks like \{\"n\": 1\}"):
        read_rows(path, number, example='{"n": 1}')


def test_skipped_rows_are_kept_with_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": \n[1]\n{"n": 4}\n', encoding="utf-8")
    rows = read_rows(path, number, example="{}", on_bad_row="skip")
    assert rows.values == [1, 4]
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in rows.bad] == ["2", "3"]
    assert "expected an object, found list" in rows.bad[1]


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"n": 1}, {"n": None}]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 2: expected a number"):
        read_rows(tmp_path / "a.parquet", number, example="{}")


def test_no_good_row_names_the_first_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no usable row; the first of 1 bad ones: .*a\.jsonl:1"):
        read_rows(path, number, example="{}", on_bad_row="skip")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"n\n1\n", "is neither .jsonl, .json nor .parquet"),
        ("a.parquet", b"no", "cannot be read"),
        ("a.jsonl", b"\xfe{}", r"a\.jsonl:1: byte 1 of the line is not UTF-8"),
        ("a.jsonl.gz", b"no", "cannot be read"),
        ("a.json", b"{}", "must hold a list of rows, not dict"),
        ("a.json", b"{", "is not JSON"),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=line) as caught:
        read_rows(tmp_path / name, number, example="{}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        read_rows(tmp_path / "gone.jsonl", number, example="{}")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], "train", [0, 1]),
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], "test", [1]),
        (["train/a.jsonl", "test/a.jsonl"], "train", [0]),
        (["a.parquet", "b.parquet"], "train", [0, 1]),
        (["dataset_infos.json", "a.parquet"], "train", [1]),
        ([".cache/train.jsonl", "constraint.jsonl", "train.jsonl"], "train", [0, 2]),
    ],
)
def test_a_folder_is_read_as_the_hub_reads_a_data_set(
    tmp_path: Path, names: list[str], split: str, expected: list[int]
) -> None:
    files = [write(tmp_path / name) for name in names]
    assert data_files(tmp_path, split) == sorted(files[index] for index in expected)


def test_the_card_of_a_data_set_names_its_files(tmp_path: Path) -> None:
    files = [write(tmp_path / name) for name in ("prefs/one.parquet", "prefs/two.parquet", "sft/train.parquet")]
    card = {"configs": [{"config_name": "other", "data_files": "sft/*"}, {"config_name": "default", "data_files": []}]}
    card["configs"][1]["data_files"] = [
        {"split": "train", "path": ["prefs/one.*"]},
        {"split": "test", "path": "prefs/t*"},
    ]
    (tmp_path / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n# Data\n", encoding="utf-8")
    assert data_files(tmp_path, "train") == files[:1]
    assert data_files(tmp_path, "test") == files[1:2]
    with pytest.raises(DataError, match=r"no data of the split 'dev'; it holds prefs/one\.parquet"):
        data_files(tmp_path, "dev")
