"""Read small YAML and JSON documents that anybody may have written: recipes, profiles, facts, and the files of a run.

A document is data: it names no class, it cannot grow beyond its text (aliases of aliases), nest without end, or hold a scalar
that only a constructor trips over. Every fault is a `ValueError` of one line, which the caller puts after the file's name.
Rows of data files have a reader of their own, `dataset_files.py`.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 100
"""Levels of nesting; the deepest document of the project has eight."""
LARGEST_YAML = 4 * 2**20
"""Bytes. A YAML file is written by hand; PyYAML reads about a megabyte in two seconds."""
LARGEST_JSON = 2**30
"""Bytes."""
MOST_NODES = 100_000
"""Values of a YAML document once every alias stands for what it names."""
LONGEST_INTEGER = 30
"""Characters; beyond, Python's own limits and those of 64 bits are met in places that cannot name the file."""
LONGEST_REASON = 300
STREAMS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Where a shell puts what it feeds to a command, `<(...)`; the user asked for it."""


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file.

    Raises:
        OSError: It cannot be read.
        ValueError: Says in one line what is wrong with it.
    """
    try:
        text = read_text(path, LARGEST_YAML)
    except ValueError as error:
        raise ValueError(f"it is not valid YAML: {error}") from error
    return parse_yaml(text)


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: Says in one line what is wrong with it.
    """
    return parse_json(read_text(path, LARGEST_JSON))


def read_text(path: Path, largest: int = LARGEST_JSON) -> str:
    """Return the text of a file that a folder from elsewhere may have replaced by a pipe, a device or a flood.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file, is too large, or is not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode) and not str(path).startswith(STREAMS):
        raise ValueError("it is a pipe or a device, not a file")
    if status.st_size > largest:
        raise ValueError(f"it has {status.st_size / 1e6:.0f} MB; at most {largest / 1e6:.0f} MB are read")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start + 1})") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. A name that stands twice in one object is an error: readers differ in which they take.

    Raises:
        ValueError: Says in one line what is wrong with it.
    """
    try:
        value = json.loads(text, object_pairs_hook=_named_once)
    except RecursionError as error:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except _NamedTwiceError:
        raise
    except ValueError as error:  # more digits than Python turns into an integer
        raise ValueError("it is not JSON that can be read: a number has thousands of digits") from error
    _check_depth(value)
    return value


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: Says in one line what is wrong with it.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader that knows how large and deep a node is once its aliases are resolved."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        self._extent: dict[int, tuple[int, int]] = {}
        """`{id of a finished node: (values in it, levels)}`; the document keeps the nodes alive."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and measure it; an alias counts as what it stands for."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            named = self.anchors.get(event.anchor)
            if named is not None and id(named) not in self._extent:
                raise yaml.composer.ComposerError(None, None, f"*{event.anchor} is inside itself", event.start_mark)
        self._level += 1
        if self._level > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"it nests deeper than {DEEPEST} levels", mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is not None and id(node) not in self._extent:
            self._extent[id(node)] = self._measure(node)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
            _check_keys(node)
        extents = [self._extent[id(child)] for child in children]
        values, levels = 1 + sum(count for count, _ in extents), 1 + max((depth for _, depth in extents), default=0)
        if values > MOST_NODES:
            problem = f"with its aliases resolved it has more than {MOST_NODES} values"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        if levels > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it nests deeper than {DEEPEST} levels", node.start_mark)
        return values, levels

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Hashable:
        """Construct a value; what PyYAML's constructors trip over becomes an error with the line."""
        if node.tag == "tag:yaml.org,2002:int" and len(str(node.value)) > LONGEST_INTEGER:
            raise _unreadable(node, f"a number of {len(str(node.value))} digits")
        try:
            return super().construct_object(node, deep)  # type: ignore[no-any-return]
        except (ValueError, AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            text = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            raise _unreadable(node, f"{text[:60]} cannot be read as {kind}; put text between quotes") from error


def _unreadable(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse a key that stands twice: the first value would be lost without a word."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            raise yaml.composer.ComposerError(None, None, f"the key {key.value[:60]!r} stands twice", key.start_mark)
        seen.add((key.tag, key.value))


class _NamedTwiceError(ValueError):
    """An object with two values for one name."""


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NamedTwiceError(f"the name {twice[:60]!r} stands twice in one object")
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [child for entry in level if isinstance(entry, dict | list) for child in _children(entry)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {DEEPEST} levels")


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _one_line(error: yaml.YAMLError) -> str:
    """Return a reason with its place; PyYAML's own text shows the line itself, with whatever stands in it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = " ".join(str(problem if problem and mark is not None else error).split())[:LONGEST_REASON]
    return text if mark is None else f"{text} (line {mark.line + 1}, column {mark.column + 1})"
