"""Data files that users bring: JSONL, JSON and Parquet files, and the folders that Hub data sets come in.

Every row keeps its place (file and line or row), so that a bad one can be named, and skipped or not as the user says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from gshf_release.data import documents, user_files
from gshf_release.data.file_notices import notice
from gshf_release.data.printable import one_line
from gshf_release.data.user_files import LINES
from gshf_release.errors import DataError

Parsed = TypeVar("Parsed")
OnBadRow = Literal["fail", "skip"]
SKIP = "--on-bad-row skip"
SKIP_IN_RECIPE = f"{SKIP} (prompts.on_bad_row: skip in the recipe)"
SPLITS = ("train", "training", "test", "validation", "valid", "val", "dev", "eval")


SHOWN_COLUMNS = 20
"""Columns that a notice names."""


class ColumnUse:
    """Counts which columns of a file's rows were read, and which were not: none is dropped without a word."""

    def __init__(self) -> None:
        self._rows: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], int] = {}

    def add(self, read: tuple[str, ...], unread: tuple[str, ...], empty: tuple[str, ...] = ()) -> None:
        """Count one row: its columns that were read, those that were not, and known ones that are empty."""
        kind = (read, unread, empty)
        self._rows[kind] = self._rows.get(kind, 0) + 1

    @property
    def read(self) -> dict[str, int]:
        """`{column: rows that it was read of}`."""
        return self._counted(0)

    @property
    def unread(self) -> dict[str, int]:
        """`{column: rows that have it and of which it was not read}`."""
        return self._counted(1)

    @property
    def empty(self) -> dict[str, int]:
        """`{known column: rows of which it is empty}`."""
        return self._counted(2)

    def _counted(self, side: int) -> dict[str, int]:
        found: Counter[str] = Counter()
        for columns, count in self._rows.items():
            for name in columns[side]:
                found[name] += count
        return dict(found)

    def tell(self, path: Path, plain: Collection[str], fate: str = "columns not used") -> None:
        """Name the columns on the terminal, unless all were read and all of these are `plain`: then they need no word."""
        read, unread, rows = self.read, self.unread, sum(self._rows.values())
        if not unread and read.keys() <= set(plain):
            return
        parts = [f"reads {_named(read, rows)}", *([f"{fate}: {_named(unread, rows)}"] if unread else [])]
        notice(f"Note: {one_line(path)}: {'; '.join(parts)}.")


def _named(columns: Mapping[str, int], rows: int) -> str:
    """Return the names of columns, with the number of rows where it is not all of them."""
    shown = [
        one_line(name)[:40] + (f" (in {count} of {rows} rows)" if count < rows else "")
        for name, count in list(columns.items())[:SHOWN_COLUMNS]
    ]
    left = len(columns) - SHOWN_COLUMNS
    return ", ".join(shown) + (f" and {left} more" if left > 0 else "")


@dataclass(frozen=True, slots=True)
class Rows(Generic[Parsed]):
    """The good rows of some files, each with its place, and what was wrong with the others."""

    values: list[Parsed] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """`data.jsonl:12`, `data.parquet row 12` (counted from 1)."""
    bad: list[str] = field(default_factory=list)
    """Place and reason of each row that was skipped."""
    columns: ColumnUse = field(default_factory=ColumnUse)


def read_rows(
    path: Path,
    parse: Callable[[dict[str, Any]], Parsed],
    *,
    example: str,
    on_bad_row: OnBadRow = "fail",
    skip: str = SKIP,
    split: str = "train",
    columns: ColumnUse | None = None,
) -> Rows[Parsed]:
    """Return the parsed rows of a file or of one split of a data set's folder.

    Args:
        path: A `.jsonl`, `.json` (a list) or `.parquet` file, the first two also with `.gz`; or a folder of such files.
        parse: Makes something of a row's object; refuses it with a ValueError.
        example: What a good row looks like, for the error.
        on_bad_row: `fail` stops at the first bad row, `skip` counts it.
        skip: What to give in order to skip, for the error.
        split: Which split of a folder.
        columns: What `parse` counts columns with.

    Raises:
        DataError: A file is missing, unreadable or of an unknown type; a row is bad; or no good row is left.
    """
    rows: Rows[Parsed] = Rows(columns=columns or ColumnUse())
    for file in data_files(path, split):
        for place, value in place_rows(file):
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
    """Return the split's files as the data set's README names them, or None if it names none.

    Raises:
        DataError: It names them in another form than the Hub's, so that its split cannot be told.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    configs = _configs(readme)
    if configs is None:
        return None
    chosen = next(
        (entry for entry in configs if entry.get("default") or entry.get("config_name") == "default"), configs[0]
    )
    patterns = _patterns(readme, chosen.get("data_files"), split)
    try:
        return sorted({file for pattern in patterns for file in folder.glob(pattern) if _kind(file)})
    except (ValueError, NotImplementedError) as error:
        raise _wrong_card(readme, str(error)) from error


def _configs(readme: Path) -> list[dict[str, Any]] | None:
    """Return the configurations that a README's front matter declares, or None."""
    matter = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        metadata = documents.parse_yaml(matter.group(1)) if matter else None
    except ValueError as error:
        raise _wrong_card(readme, f"in its front matter {error}") from error
    configs = metadata.get("configs") if isinstance(metadata, dict) else None
    if configs is None or configs == []:
        return None
    if not isinstance(configs, list) or not all(isinstance(entry, dict) for entry in configs):
        raise _wrong_card(readme, "`configs` is no list of configurations")
    return configs


def _patterns(readme: Path, listed: Any, split: str) -> list[str]:
    """Return the paths that `data_files` names for a split: a text, a list of texts, or a list of splits with their paths."""
    entries = [{"split": "train", "path": listed}] if isinstance(listed, str) else listed or []
    if isinstance(entries, list) and entries and all(isinstance(entry, str) for entry in entries):
        entries = [{"split": "train", "path": entries}]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong_card(readme, "`data_files` names no paths")
    paths = [entry.get("path") for entry in entries if entry.get("split") == split]
    found = [one for path in paths for one in (path if isinstance(path, list) else [path])]
    if not all(isinstance(one, str) and one for one in found):
        raise _wrong_card(readme, "`data_files` has a path that is no text")
    return found


def _wrong_card(readme: Path, reason: str) -> DataError:
    hint = "Mend its `configs`, or remove them: the split is then read from the names of the files."
    return DataError(f"{readme}: {one_line(reason)[:160]}.", hint=hint)


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z]+", path.as_posix().lower()))


def _kind(path: Path) -> str:
    """Return `lines`, `json` or `parquet`, or nothing for a file that holds no rows."""
    if path.suffix == ".parquet":
        return "parquet"
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return "lines" if suffix in LINES else {".json": "json"}.get(suffix, "")


def place_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield `(place, row)` of every row of one file, whatever it is; a line that is no JSON comes as a ValueError.

    Raises:
        DataError: The file cannot be read, or is of an unknown type.
    """
    if not _kind(path):
        raise DataError(f"{path} is neither .jsonl, .json nor .parquet.")
    yield from user_files.rows(path)


def _parsed(value: Any, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    if isinstance(value, ValueError):
        raise value
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    return parse(value)
