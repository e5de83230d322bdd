"""Opens the files that users bring, whatever wrote them: the one reader of questions, answers, judgments, prompts, preferences.

A file may be packed with gzip (known by its content, not by its name), in UTF-8 or UTF-16, with or without a byte order mark.
Rows stand one to a line, in a JSON list, or in a Parquet file. Half a surrogate pair in a text becomes U+FFFD, which is said.
Everything else that is wrong with a file is one line that names the file and, if there is one, the row.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gshf_release.data.documents import DEEPEST
from gshf_release.data.file_notices import notice
from gshf_release.errors import DataError

LINES, PARQUET = (".jsonl", ".ndjson"), ".parquet"
GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The byte order marks, in the order in which they are told apart: UTF-32's begins as UTF-16's does."""
MEBIBYTE = 2**20
UNPACKED_AT_LEAST, UNPACKED_RATIO = 64 * MEBIBYTE, 200
"""A packed file may open to 200 times its size, or to 64 MiB if that is more. Rows of text pack to a third or a tenth; deflate
itself ends at 1:1032, so what lies beyond was made to fill memory."""
ROW_LIMIT = 256 * MEBIBYTE
"""Bytes of one line: no row of text comes near."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        DataError: It is missing, empty, no text, breaks off, or opens to more than a packed file may.
    """
    with _opened(path) as stream:
        text = _decoded(path, _all_of(stream))
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return text


def read_json(path: Path, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the one JSON document of a file.

    Args:
        path: The file.
        parse_constant: Makes something of `NaN`, `Infinity` and `-Infinity`; None takes them for the numbers.

    Raises:
        DataError: It cannot be read, or is no JSON.
    """
    text = read_text(path)
    document = _document(path, text, parse_constant)
    if (fault := _fault(document, DEEPEST)) is not None:
        raise DataError(f"{path}: {fault}.")
    repairs = _Repairs(path)
    document = repairs.repaired(text, document, str(path))
    repairs.tell("place")
    return document


def rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield `(place, row)` of every row; one that is no JSON, or none that can be used, comes as a ValueError with the reason.

    Places are `data.jsonl:12`, `data.json row 12`, counted from 1.

    Raises:
        DataError: The file cannot be read.
    """
    repairs = _Repairs(path)
    with _opened(path) as stream:
        head = _peek(stream)
        if path.suffix == PARQUET or head.startswith(PARQUET_MAGIC):
            found = _parquet_rows(path)
        elif _is_lines(path, head):
            found = _lines(path, stream, repairs)
        else:
            found = _text_rows(path, _decoded(path, _all_of(stream)), repairs)
        yield from found
    repairs.tell("row(s)")


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, row)` of every row, each an object.

    Raises:
        DataError: The file cannot be read, or a row is none; names the row.
    """
    for place, value in rows(path):
        if isinstance(value, ValueError):
            raise DataError(f"{place}: {value}.") from value
        if not isinstance(value, dict):
            raise DataError(f"{place}: expected an object, found {type(value).__name__}.")
        yield place, value


def loads(text: str) -> Any:
    """Return the value of a JSON text from outside.

    Raises:
        ValueError: It is no JSON, an object has a key twice (the first value would be lost), or it is nested too deeply.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if _may_be_deep(text) and (fault := _fault(value, DEEPEST)) is not None:
        raise ValueError(fault)
    return value


def _may_be_deep(text: str) -> bool:
    """Return whether a text has brackets enough to nest too deeply; `split` finds them three times as fast as `count`."""
    half = DEEPEST // 2
    return len(text.split("{", half)) > half or len(text.split("[", half)) > half


# Bytes ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Give a file as a stream of its bytes, unpacked.

    Raises:
        DataError: What went wrong while it was read, in one line that names it.
    """
    try:
        with path.open("rb") as plain:
            if plain.peek(2).startswith(GZIP_MAGIC):
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield io.BufferedReader(_Limited(path, unpacked), MEBIBYTE // 4)
            elif path.suffix == ".gz":
                raise DataError(f"{path} cannot be read: it is called .gz, but is not packed with gzip.")
            else:
                yield plain
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = "It breaks off or was changed: bring it again."
        raise DataError(f"{path} cannot be read: {error}.", hint=hint) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory of this machine.") from error


class _Limited(io.RawIOBase):
    """The unpacked bytes of a packed file, up to what such a file may open to."""

    def __init__(self, path: Path, unpacked: gzip.GzipFile) -> None:
        self._path, self._unpacked = path, unpacked
        self._left = max(UNPACKED_AT_LEAST, UNPACKED_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._path} opens to more than {UNPACKED_RATIO} times its size, which no rows of text do; given up.",
                hint="If it is what you want, unpack it yourself and name the unpacked file.",
            )
        return count


def _peek(stream: io.BufferedReader) -> bytes:
    return stream.peek(4096)


def _all_of(stream: io.BufferedReader) -> bytes:
    return b"".join(iter(partial(stream.read, MEBIBYTE), b""))


# Text ----------------------------------------------------------------------------------------------------------------


def _encoding(content: bytes) -> str:
    return next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")


def _decoded(path: Path, content: bytes) -> str:
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        hint = "Save it as UTF-8." if encoding.startswith("utf-8") else "Bring it again, or save it as UTF-8."
        what = encoding.removesuffix("-sig").upper()
        raise DataError(f"{path} cannot be read: byte {error.start + 1} is not {what}.", hint=hint) from error


def _is_lines(path: Path, head: bytes) -> bool:
    """Return whether rows stand one to a line, as far as the name and the first bytes tell; such a file is never held whole."""
    if not _encoding(head).startswith("utf-8"):
        return False
    begin = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return begin != b"[" and (suffix in LINES or suffix != ".json")


def _lines(path: Path, stream: io.BufferedReader, repairs: _Repairs) -> Iterator[tuple[str, Any]]:
    number, prefix = 0, f"{path}:"
    for content in iter(partial(stream.readline, ROW_LIMIT), b""):
        number += 1
        if len(content) >= ROW_LIMIT:
            raise DataError(f"{path}:{number}: the line is longer than {ROW_LIMIT // MEBIBYTE} MiB, which no row is.")
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if content.isspace():
            continue
        try:
            line = content.decode("utf-8")
        except UnicodeDecodeError as error:
            yield f"{path}:{number}", ValueError(f"byte {error.start + 1} of the line is not UTF-8")
            continue
        try:
            value = loads(line)
        except ValueError:
            for place, value in _parts(path, number, line):
                yield place, repairs.repaired(line, value, place)
            number += line.rstrip("\r\n").count("\r")
            continue
        place = prefix + str(number)
        yield place, repairs.repaired(line, value, place) if "\\u" in line else value


def _parts(path: Path, number: int, line: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a line that is no row: as many as carriage returns, line ends of old programs, divide it into.

    JSON has no carriage return inside a text, so one that stands there ends a line or is a space.
    """
    for at, part in enumerate(line.rstrip("\r\n").split("\r"), number):
        if part.strip():
            yield f"{path}:{at}", _value_or_error(part)


def _text_rows(path: Path, text: str, repairs: _Repairs) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a whole text: those of a JSON list, else of lines; an object alone is one row."""
    if not text.strip():
        raise DataError(f"{path} is empty.")
    named_lines = Path(path.name.removesuffix(".gz")).suffix in LINES
    try:
        document = _parsed(text, _marked_object, None)
    except ValueError as error:
        if named_lines or getattr(error, "msg", "") == "Extra data":
            yield from _split_rows(path, text, repairs)
            return
        raise _no_document(path, text, error) from error
    if isinstance(document, dict) and document:
        document = [document]
    elif not isinstance(document, list):
        raise DataError(f"{path} must hold a list of rows, not {type(document).__name__}.")
    elif named_lines and not any(isinstance(value, dict) for value in document):
        yield f"{path}:1", document  # a line that is a list, and no list of rows
        return
    for number, value in enumerate(document, 1):
        place = f"{path} row {number}"
        fault = _fault(value, DEEPEST)
        yield place, repairs.repaired(text, value, place) if fault is None else ValueError(fault)


def _split_rows(path: Path, text: str, repairs: _Repairs) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, repairs.repaired(line, _value_or_error(line), place)


# Values --------------------------------------------------------------------------------------------------------------


class _Repeated(dict[str, Any]):
    """An object that has a key twice."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(_repeated(pairs))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _marked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one with a key twice is marked, so that its row can be named."""
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Repeated(found)
        found.key = _repeated(pairs)
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    keys = [key for key, _ in pairs]
    key = next(key for number, key in enumerate(keys) if key in keys[:number])
    return f"the key {key[:40]!r} stands twice in one object"


def _parsed(text: str, hook: Callable[[list[tuple[str, Any]]], Any], constants: Callable[[str], Any] | None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=hook, parse_constant=constants)
    except RecursionError:
        raise ValueError(_too_deep()) from None


def _document(path: Path, text: str, parse_constant: Callable[[str], Any] | None) -> Any:
    try:
        return _parsed(text, _marked_object, parse_constant)
    except ValueError as error:
        raise _no_document(path, text, error) from error


def _no_document(path: Path, text: str, error: ValueError) -> DataError:
    if isinstance(error, json.JSONDecodeError):
        return DataError(f"{path} is not JSON: {_reason(error, text)}.")
    return DataError(f"{path} cannot be read: {error}.")


def _too_deep() -> str:
    return f"lists and objects are nested more than {DEEPEST} deep"


def _fault(value: Any, left: int) -> str | None:
    """Return what makes a value unusable: it is nested too deeply, or has a key twice."""
    if left == 0:
        return _too_deep()
    if isinstance(value, _Repeated):
        return value.key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = (_fault(each, left - 1) for each in inner if isinstance(each, dict | list))
    return next((fault for fault in found if fault is not None), None)


def _reason(error: ValueError, text: str) -> str:
    if "\0" in text:
        return "it holds NUL bytes, so it is no text (or UTF-16 without its mark)"
    return str(error)


def _value_or_error(text: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        return ValueError(_reason(error, text))


class _Repairs:
    """Counts the rows of a file whose texts had half a surrogate pair."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._first = ""

    def repaired(self, text: str, value: Any, place: str) -> Any:
        """Return a value in which U+FFFD stands for each half of a pair; `text` is the JSON in which it stood."""
        if _SURROGATE.search(text) is None or isinstance(value, ValueError):
            return value
        whole = _whole(value)
        if whole != value:
            self._count += 1
            self._first = self._first or place
        return whole

    def tell(self, unit: str) -> None:
        """Say how many rows were repaired, if any."""
        if self._count:
            where = self._first if self._first != str(self._path) else ""
            notice(
                f"Warning: {self._path}: half a character (a lone surrogate such as \\ud83d) in {self._count} {unit} was "
                f"replaced by U+FFFD{f'; the first: {where}' if where else ''}.",
                key=f"surrogates {self._path.stat().st_size} {self._count} {where.removeprefix(str(self._path))}",
            )


def _whole(value: Any) -> Any:
    """Return a JSON value whose texts can be encoded: halves that belong together are joined, others become U+FFFD."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", value
    except (ValueError, OverflowError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read after row {number}: {error}.") from error
