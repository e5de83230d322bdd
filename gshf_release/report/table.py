"""A table of texts, and how it becomes Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gshf_release.data.printable import printable


@dataclass(frozen=True, slots=True)
class Table:
    """Texts in rows and columns."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def markdown(table: Table) -> str:
    """Return a table as Markdown; cell texts cannot break out of their cell."""
    lines = [_line(table.header), _line(["---"] * len(table.header)), *(_line(row) for row in table.rows)]
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(escape(text) for text in texts) + " |"


def escape(text: str) -> str:
    """Return text that is only text inside a Markdown table cell: no link, emphasis, formula, tag or code begins in it.

    An underscore inside a word means nothing in Markdown, so it stays as it is.
    """
    marked = re.sub(r"[\\|`*\[\]~$]|(?<!\w)_|_(?!\w)", lambda found: f"\\{found[0]}", printable(text))
    return " ".join(marked.replace("<", "&lt;").split())
