"""The reader of users' files: every form and encoding gives the same rows, and every damage is one line with its place."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data import user_files
from gshf_release.data.file_notices import heard_by, notice
from gshf_release.data.user_files import MEBIBYTE, objects, read_json, read_text, rows
from gshf_release.errors import DataError

ROWS = [{"n": 1, "text": "a\u2028b\u0085 é 猫 🎉"}, {"n": 2, "text": "c"}]
FORMS = {
    "lines": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "lines, escaped": "".join(json.dumps(row) + "\n" for row in ROWS),
    "lines, no end": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "lines, CR LF": "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS),
    "lines, CR": "".join(json.dumps(row, ensure_ascii=False) + "\r" for row in ROWS),
    "list": json.dumps(ROWS, ensure_ascii=False),
    "list, indented": json.dumps(ROWS, ensure_ascii=False, indent=2),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "0123abcd"])
def test_every_form_gives_the_same_rows_whatever_the_name(
    tmp_path: Path, name: str, form: str, encoding: str, packed: bool
) -> None:
    content = FORMS[form].encode(encoding)
    path = tmp_path / (name + ".gz" * (packed and name[0] == "a"))
    path.write_bytes(gzip.compress(content) if packed else content)
    assert [row for _, row in rows(path)] == ROWS
    assert [row["n"] for _, row in objects(path)] == [1, 2]


def test_places_are_lines_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n\n{"n": 2}\r{"n": 3}\r\r{"n": 4}\n{"n": 5}\n')
    assert [place for place, _ in rows(path)] == [f"{path}:{number}" for number in (1, 3, 4, 6, 7)]
    path.write_text("[{}, {}]", encoding="utf-8")
    assert [place for place, _ in rows(path)] == [f"{path} row 1", f"{path} row 2"]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"n": 1}', encoding="utf-8")
    assert list(rows(path)) == [(f"{path} row 1", {"n": 1})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice in one object"),
        ('{"b": {"a": 1, "a": 2}}', "the key 'a' stands twice in one object"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested more than 100 deep"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 deep"),
        ('{"a": ' + "9" * 5000 + "}", "integer string conversion"),
        ('{"a": "\x00"}', "it holds NUL bytes, so it is no text"),
        ('{"a": "open', "Unterminated string"),
    ],
)
def test_a_bad_row_is_a_reason_and_leaves_the_others(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"n": 1}}\n{line}\n{{"n": 3}}\n', encoding="utf-8")
    (_, first), (place, bad), (_, last) = rows(path)
    assert (first, place, last) == ({"n": 1}, f"{path}:2", {"n": 3})
    assert isinstance(bad, ValueError)
    assert reason in str(bad)
    with pytest.raises(DataError, match=re.escape(f"{path}:2: ")):
        list(objects(path))


@pytest.mark.parametrize("value", ['{"a": 1, "a": 2}', "[" * 150 + "]" * 150])
def test_a_bad_row_of_a_list_leaves_the_others(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'[{{"n": 1}}, {value}, {{"n": 3}}]', encoding="utf-8")
    found = list(rows(path))
    assert [place for place, _ in found] == [f"{path} row {number}" for number in (1, 2, 3)]
    assert [isinstance(row, ValueError) for _, row in found] == [False, True, False]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


PACKED = gzip.compress("".join(f'{{"n": {number**3}}}\n' for number in range(3000)).encode())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b"\xef\xbb\xbf \n", "is empty"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[1", "is not JSON"),
        ("a.json", b'"text"', "must hold a list of rows, not str"),
        ("a.json", b"{}", "must hold a list of rows, not dict"),
        ("a.json", b"[\xff]", "byte 2 is not UTF-8"),
        ("a.json", b"\xff\xfea", "byte 3 is not UTF-16"),
        ("a.json", b'["' + b"\0" * 9 + b'"]', "it holds NUL bytes"),
        ("a.json", b"[" * 5000, "nested more than 100 deep"),
        ("a.jsonl.gz", PACKED[:-400], "cannot be read: Compressed file ended"),
        ("a.jsonl.gz", PACKED[:-4] + b"\1\1\1\1", "cannot be read: Incorrect length"),
        ("a.jsonl.gz", flipped(PACKED, 60), "cannot be read"),
        ("a.jsonl.gz", flipped(PACKED, len(PACKED) // 2), "cannot be read"),
        ("a.jsonl.gz", b'{"n": 1}\n', "is called .gz, but is not packed with gzip"),
        ("a.parquet", b"PAR1 but no more", "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        list(rows(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@given(at=st.integers(0, len(PACKED) - 1), mask=st.integers(1, 255))
def test_a_flipped_byte_is_an_error_of_ours_or_no_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, mask: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.jsonl.gz"
    path.write_bytes(PACKED[:at] + bytes([PACKED[at] ^ mask]) + PACKED[at + 1 :])
    try:
        list(rows(path))
    except DataError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        list(rows(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(rows(tmp_path))


def bomb(path: Path, chunk: bytes, times: int) -> Path:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as stream:
        for _ in range(times):
            stream.write(packer.compress(chunk))
        stream.write(packer.flush())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [b"a" * MEBIBYTE, b'{"n": 1}\n' * (MEBIBYTE // 9)], ids=["one line", "many lines"])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_a_packed_file_that_opens_to_far_more_than_data_is_given_up(tmp_path: Path, name: str, chunk: bytes) -> None:
    path = bomb(tmp_path / name, chunk, 2 * user_files.UNPACKED_AT_LEAST // MEBIBYTE)
    with pytest.raises(DataError, match="opens to more than 200 times its size") as caught:
        for _ in rows(path):
            pass
    assert "unpack it yourself" in caught.value.hint
    with pytest.raises(DataError, match="opens to more than 200 times its size"):
        read_text(path)


def test_a_line_longer_than_any_row_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "ROW_LIMIT", 2 * MEBIBYTE)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + b"a" * (3 * MEBIBYTE))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is longer than 2 MiB"):
        list(rows(path))


# Halves of characters ------------------------------------------------------------------------------------------------
HALF = '{"n": 1, "text": "half \\ud83d here"}'


@pytest.mark.parametrize(
    "text", [f'{{"n": 0}}\n{HALF}\n{HALF}\n', f'[{{"n": 0}},\n{HALF}, {HALF}]'], ids=["lines", "list"]
)
def test_half_a_character_is_replaced_and_said_once(tmp_path: Path, text: str) -> None:
    path, copy = tmp_path / "a.json", tmp_path / "0123"
    for file in (path, copy):
        file.write_text(text, encoding="utf-8")
    said: list[str] = []
    with heard_by(said.append):
        found = [row for _, row in rows(path)]
        list(rows(path))
        list(rows(copy))
    assert [row.get("text") for row in found] == [None, "half \ufffd here", "half \ufffd here"]
    (line,) = said
    assert line.startswith(
        f"Warning: {path}: half a character (a lone surrogate such as \\ud83d) in 2 row(s) was replaced"
    )
    json.dumps(found, ensure_ascii=False).encode()


def test_whole_pairs_stay_and_separated_halves_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t": "\\ud83c\\udf89"}\n{"t": "\\uD83C\\uDF89", "\\udf89": 1}\n', encoding="utf-8")
    assert [row for _, row in rows(path)] == [{"t": "🎉"}, {"t": "🎉", "\ufffd": 1}]


@given(text=st.text(st.characters(categories=None), max_size=30))
def test_every_text_can_be_encoded_and_what_could_is_unchanged(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "a.jsonl"
    path.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    ((_, row),) = rows(path)
    try:
        text.encode()
        assert row == {"text": text}
    except UnicodeEncodeError:
        row["text"].encode()


def test_a_document_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": NaN, "b": "\\ud83d"}')
    assert read_json(path, parse_constant=str) == {"a": "NaN", "b": "\ufffd"}
    path.write_text('{"a": {"b": 1, "b": 2}}', encoding="utf-8")
    with pytest.raises(DataError, match="the key 'b' stands twice"):
        read_json(path)


def test_a_notice_without_a_listener_is_not_said() -> None:
    said: list[str] = []
    notice("before")
    with heard_by(said.append):
        notice("one")
        notice("one")
        notice("two", key="one")
    notice("after")
    assert said == ["one"]
