"""Data files that users bring: JSONL, JSON and Parquet files, and the folders that Hub data sets come in.

Every row keeps its place (file and line or row), so that a bad one can be named, and skipped or not as the user says.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gshf_release.errors import DataError

Parsed = TypeVar("Parsed")
OnBadRow = Literal["fail", "skip"]
SKIP = "--on-bad-row skip"
SKIP_IN_RECIPE = f"{SKIP} (prompts.on_bad_row: skip in the recipe)"
LINES = (".jsonl", ".ndjson")
SPLITS = ("train", "training", "test", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True, slots=True)
class Rows(Generic[Parsed]):
    """The good rows of some files, each with its place, and what was wrong with the others."""

    values: list[Parsed] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """`data.jsonl:12`, `data.parquet row 12` (counted from 1)."""
    bad: list[str] = field(default_factory=list)
    """Place and reason of each row that was skipped."""


def read_rows(
    path: Path,
    parse: Callable[[dict[str, Any]], Parsed],
    *,
    example: str,
    on_bad_row: OnBadRow = "fail",
    skip: str = SKIP,
    split: str = "train",
) -> Rows[Parsed]:
    """Return the parsed rows of a file or of one split of a data set's folder.

    Args:
        path: A `.jsonl`, `.json` (a list) or `.parquet` file, the first two also with `.gz`; or a folder of such files.
        parse: Makes something of a row's object; refuses it with a ValueError.
        example: What a good row looks like, for the error.
        on_bad_row: `fail` stops at the first bad row, `skip` counts it.
        skip: What to give in order to skip, for the error.
        split: Which split of a folder.

    Raises:
        DataError: A file is missing, unreadable or of an unknown type; a row is bad; or no good row is left.
    """
    rows: Rows[Parsed] = Rows()
    for file in data_files(path, split):
        for place, value in _raw_rows(file):
            try:
                rows.values.append(_parsed(value, parse))
                rows.places.append(place)
            except ValueError as error:
                if on_bad_row == "fail":
                    hint = f"A row looks like {example}; or skip and count bad rows with {skip}"
                    raise DataError(f"{place}: {error}.", hint=hint) from error
                rows.bad.append(f"{place}: {error}")
    if not rows.values:
        why = f"; the first of {len(rows.bad)} bad ones: {rows.bad[0]}" if rows.bad else ""
        raise DataError(f"{path} holds no usable row{why}.", hint=f"A row looks like {example}")
    return rows


def data_files(path: Path, split: str = "train") -> list[Path]:
    """Return the files that hold a split: a file is its own; a folder is read as the Hub reads a data set.

    A folder's README may name the files of each split (`configs:`, the default or first configuration); else the split's name
    is in the file's or its folder's name (`data/train-00000-of-00001.parquet`); else, if no name speaks of splits, all files.

    Raises:
        DataError: There is nothing at the path, or no data file of that split.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist.")
    found = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) and file.name[0] != ".")
    data = [file for file in found if _kind(file) in ("lines", "parquet")] or found
    named = _files_of_card(path, split)
    if named is None:
        words = {file: _words(file.relative_to(path)) for file in data}
        if any(word in SPLITS for each in words.values() for word in each):
            named = [file for file in data if split in words[file]]
        else:
            named = data
    if not named:
        names = ", ".join(str(file.relative_to(path)) for file in data[:4]) or "no data file at all"
        raise DataError(f"{path} has no data of the split {split!r}; it holds {names}.", hint="Choose with --split")
    return named


def _files_of_card(folder: Path, split: str) -> list[Path] | None:
    """Return the split's files as the data set's README names them, or None if it names none."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    matter = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        metadata = yaml.safe_load(matter.group(1)) if matter else None
    except yaml.YAMLError:
        return None
    configs = metadata.get("configs") if isinstance(metadata, dict) else None
    if not isinstance(configs, list) or not configs:
        return None
    chosen = next(
        (entry for entry in configs if entry.get("default") or entry.get("config_name") == "default"), configs[0]
    )
    patterns = chosen.get("data_files")
    if isinstance(patterns, str):
        patterns = [{"split": "train", "path": patterns}]
    wanted = [entry["path"] for entry in patterns or [] if isinstance(entry, dict) and entry.get("split") == split]
    listed = [one for path in wanted for one in (path if isinstance(path, list) else [path])]
    return sorted({file for pattern in listed for file in folder.glob(pattern) if _kind(file)})


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z]+", path.as_posix().lower()))


def _kind(path: Path) -> str:
    """Return `lines`, `json` or `parquet`, or nothing for a file that holds no rows."""
    if path.suffix == ".parquet":
        return "parquet"
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return "lines" if suffix in LINES else {".json": "json"}.get(suffix, "")


def _raw_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield `(place, object or ValueError)`: a line that is no JSON is a bad row like any other."""
    kind = _kind(path)
    try:
        if kind == "lines":
            yield from _lines(path)
        elif kind == "json":
            yield from _elements(path)
        elif kind == "parquet":
            yield from _parquet_rows(path)
        else:
            raise DataError(f"{path} is neither .jsonl, .json nor .parquet.")
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def place_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield `(place, row)` of every row of one file, whatever it is; a line that is no JSON comes as a ValueError.

    Raises:
        DataError: The file cannot be read, or is of an unknown type.
    """
    yield from _raw_rows(path)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"{path}:{number}", json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    yield f"{path}:{number}", ValueError(f"byte {error.start + 1} of the line is not UTF-8")
                except ValueError as error:
                    yield f"{path}:{number}", error


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    with _text(path) as stream:
        try:
            document = json.load(stream)
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, list):
        raise DataError(f"{path} must hold a list of rows, not {type(document).__name__}.")
    yield from ((f"{path} row {number}", value) for number, value in enumerate(document, 1))


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
        for value in batch.to_pylist():
            number += 1
            yield f"{path} row {number}", value


def _text(path: Path) -> Any:
    """Open a text file, unpacking it if need be; lines end at a line feed only, not at U+2028 inside a text."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def _parsed(value: Any, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    if isinstance(value, ValueError):
        raise value
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    return parse(value)
