"""Take a key out of text that somebody else wrote, before it is printed or stored.

    mask = Mask("sk-secret...", "OPENAI_API_KEY")
    mask("Incorrect API key: sk-sec...")     # "Incorrect API key: $OPENAI_API_KEY"

A server may repeat the key whole, cut it (`sk-abc...wxyz`), encode it for a URL, for JSON, for HTML or as base64, or change its
case.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

PIECE = 8
"""Characters of a key that, found together, are taken for a piece of it."""
WORD_PIECE = 16
"""The same for letters alone of a key without digits, which may be a word of what is no secret (`no-key-required`)."""
SHORTEST = 4
"""Shorter keys are placeholders."""
CUT = re.compile(r"[*•●…]+|\.{2,}")
"""What stands for the middle of a key."""
CUT_END = 4
"""Characters of the key beside such marks that give it away; half as many where both ends are shown."""
PASSWORD = re.compile(r"://[^\s'\"]*@")
QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")


class Mask:
    """Replaces every piece of one secret by the name of the variable that holds it."""

    def __init__(self, secret: str, name: str) -> None:
        """Prepare the mask; an empty secret hides nothing.

        Args:
            secret: The key.
            name: Of the environment variable, shown in its place as `$NAME`.
        """
        self.shown = f"${name}"
        self._secret = secret
        self._words = not any(character.isdigit() for character in secret)
        long = len(secret) >= PIECE
        forms = set(_forms(secret)) if long else set()
        self._pieces = frozenset(form[i : i + PIECE] for form in forms for i in range(len(form) - PIECE + 1))
        self._spelt = _spelt(secret) if long and not self._words else None
        whole = not long and len(secret) >= SHORTEST and not secret.isalpha()
        self._whole = re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)") if whole else None

    def __repr__(self) -> str:
        return f"Mask({self.shown})"

    def __call__(self, text: str) -> str:
        """Return the text without the secret."""
        shown, end = [], 0
        for first, last in self.spans(text):
            shown += [text[end:first], self.shown]
            end = last
        return "".join([*shown, text[end:]]) if shown else text

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where in the text pieces of the secret stand, in order and apart."""
        if len(text) < SHORTEST or not self._secret:
            return []
        found = sorted([*self._runs(text), *self._cuts(text)])
        if self._spelt is not None:
            found += [match.span() for match in self._spelt.finditer(text)]
        if self._whole is not None:
            found += [match.span() for match in self._whole.finditer(text)]
        merged: list[tuple[int, int]] = []
        for first, last in sorted(found):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged

    def _runs(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the stretches of the text that a form of the secret holds too."""
        if not self._pieces:
            return
        start = -1
        for position in range(len(text) - PIECE + 2):
            if text[position : position + PIECE] in self._pieces:
                start = position if start < 0 else start
            elif start >= 0:
                end = position - 1 + PIECE
                piece = text[start:end]
                word = piece.isalpha() and self._words
                if not word or len(piece) >= WORD_PIECE or piece == self._secret:
                    yield start, end
                start = -1

    def _cuts(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where the secret's two ends stand with marks for what is between them."""
        if len(self._secret) < PIECE:
            return
        for marks in CUT.finditer(text):
            lengths = range(len(self._secret) - 1, 1, -1)
            head = next((k for k in lengths if text.endswith(self._secret[:k], 0, marks.start())), 0)
            tail = next((k for k in lengths if text.startswith(self._secret[-k:], marks.end())), 0)
            if head >= CUT_END or tail >= CUT_END or (head and tail):
                yield marks.start() - head, marks.end() + tail


def _spelt(secret: str) -> re.Pattern[str]:
    """Return a pattern of the whole secret in either case, with blanks between its characters, or as numbers for HTML."""
    letters = [f"(?:{re.escape(letter)}|&#0*{ord(letter)};|&#x0*{ord(letter):x};)" for letter in secret]
    return re.compile(r"[\s\u200b\u00ad]*".join(letters), re.IGNORECASE)


def without_password(text: str) -> str:
    """Return a text with what may be secret in its addresses left out: user and password, and the query."""
    return QUERY.sub(r"\1?***", PASSWORD.sub("://***@", text))


def _forms(secret: str) -> Iterator[str]:
    """Yield the ways in which a server may write a secret."""
    octets = secret.encode("utf-8", "replace")
    yield secret
    yield quote(secret, safe="")
    yield html.escape(secret)
    yield json.dumps(secret)[1:-1]
    yield "".join(f"\\u{ord(character):04x}" for character in secret)
    for letters in ("%{:02x}", "%{:02X}", "{:02x}", "{:02X}"):
        yield "".join(letters.format(octet) for octet in octets)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # `Bearer KEY` and `user:KEY` shift the key against base64's groups of three octets
            encoded = encode(b"\0" * before + octets).decode().rstrip("=")
            yield encoded[4 if before else 0 : len(encoded) - 1]
