"""The two texts of self-instruct: a request that shows a numbered list, and the list that comes back.

The request's wording is `training/prompts/self-instruct.txt`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from gshf_release.data import assets

TEMPLATE = "self-instruct"
ITEM = re.compile(r"\s{0,3}(?:[#>-]+\s*)?(?P<bold>\*\*)?\d{1,4}[.):](?P<closed>\*\*)?(?:\s+|$)(?P<text>.*)")
WRAPPINGS = (("**", "**"), ('"', '"'), ("“", "”"), ("«", "»"), ("'", "'"), ("`", "`"), ("*", "*"))


class Parsed(NamedTuple):
    """The entries of one list."""

    items: list[str]
    cut: int
    """1 if the last entry was discarded because the token limit ended it, else 0."""


def request_text(examples: Sequence[str], asked: int) -> str:
    """Return what the writer is asked: to go on with a list of `examples` by `asked` entries."""
    template = string.Template(assets.find(TEMPLATE, "training/prompts", ".txt").read_text(encoding="utf-8"))
    shown = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(examples, 1))
    first = len(examples) + 1
    return template.substitute(examples=shown, asked=asked, first=first, last=first + asked - 1).strip()


def parse(text: str, *, cut: bool) -> Parsed:
    """Return the entries of a numbered list, unchanged but for what wraps them.

    An entry begins at a line with a number and ends at the next one or at an empty line; what stands before the first or after
    an empty line is talk around the list.

    Args:
        text: What the writer wrote.
        cut: The token limit ended it, so the last entry is incomplete.
    """
    items: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        found = ITEM.fullmatch(line)
        if found is not None:
            whole_line = found["bold"] and not found["closed"]
            items.append([found["text"].rstrip().removesuffix("**") if whole_line else found["text"]])
            inside = True
        elif not line.strip():
            inside = False
        elif inside:
            items[-1].append(line)
    discarded = 1 if cut and items else 0
    kept = items[: len(items) - discarded]
    entries = [unwrapped("\n".join(lines)) for lines in kept]
    return Parsed([entry for entry in entries if entry], discarded)


def unwrapped(text: str) -> str:
    """Return a text without the emphasis or quotation marks around the whole of it."""
    text = text.strip()
    for left, right in WRAPPINGS:
        inner = text[len(left) : len(text) - len(right)]
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            if left in inner or right in inner:
                return text
            return unwrapped(inner)
    return text
