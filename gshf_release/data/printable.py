"""Text from outside as it may be shown: a name, a path or a server's words never move the cursor, colour or clear a screen.

A terminal obeys control characters (ESC and CSI begin a command, CR goes back over what stands there), and marks that
turn the direction of writing show another order than the text has. All of them appear as their escapes, `\\x1b` for ESC.
"""

from __future__ import annotations

import re

_KEPT = "\t\n"
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029\ufeff\ud800-\udfff]"  # line ends that are none in a file, byte order mark, halves of a letter
)


def printable(text: object) -> str:
    """Return a text in which every character that a terminal would obey stands as its escape; lines and tabs stay."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def one_line(text: object) -> str:
    """Return `printable` text on one line: line ends and tabs are escapes too."""
    return re.sub(f"[{_KEPT}]", lambda found: found[0].encode("unicode_escape").decode("ascii"), printable(text))


def printable_json(document: str) -> str:
    """Return serialised JSON that says the same and holds nothing that a terminal would obey."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
