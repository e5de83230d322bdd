"""Words of a text in any script: what ROUGE-L, 8-grams and the length filter count.

For ASCII text the words are those of the `rouge_score` package: runs of [a-z0-9] in lower case. That package finds no word in
`日本語` or `привет`, so that such prompts would never count as similar; other text follows this rule instead:

- compatibility forms are unified (NFKC) and letter case is folded, so that full-width letters equal ordinary ones;
- a word is a run of letters, marks and digits of any script (Unicode categories L, M and N), accents included;
- in scripts that are written without spaces (Han, Hiragana, Katakana, Thai, Lao, Myanmar, Khmer) each letter, with the marks
  that follow it, is a word of its own;
- everything else (punctuation, symbols, emoji) separates words and is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import chain

ASCII_WORD = re.compile(r"[a-z0-9]+")
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
ASSIGNED = (range(0x40000), range(0xE0000, 0xE1000))
"""Where Unicode has letters, marks and digits; between and above lie unassigned and private code points."""


def words(text: str) -> list[str]:
    """Return the words of a text, in order, for comparison (not for showing)."""
    if text.isascii():
        return ASCII_WORD.findall(text.lower())
    return _any_word().findall(unicodedata.normalize("NFKC", text).casefold())


def word_count(text: str) -> int:
    """Return how many words a reader would count: parts between spaces, or letters where a script has no spaces."""
    if text.isascii():
        return len(text.split())
    unspaced = _unspaced_letters()
    return sum(max(1, sum(ord(letter) in unspaced for letter in part)) for part in text.split())


def normalised(text: str) -> str:
    """Return what two texts share if they differ only in case, spacing, punctuation or symbols.

    A text without any word, such as an emoji, stands for itself.
    """
    return " ".join(words(text)) or " ".join(text.split())


@cache
def _any_word() -> re.Pattern[str]:
    """Compile the rule; it takes a moment, so only the first text that is not ASCII does it."""
    letters: list[int] = []
    unspaced: list[int] = []
    marks: list[int] = []
    for code in chain(*ASSIGNED):
        category = unicodedata.category(chr(code))[0]
        if category == "M":
            marks.append(code)
        elif category == "L" and code in _unspaced_letters():
            unspaced.append(code)
        elif category in "LN":
            letters.append(code)
    return re.compile(f"{_class(unspaced)}{_class(marks)}*|{_class(sorted([*letters, *marks]))}+")


@cache
def _unspaced_letters() -> frozenset[int]:
    codes = chain(*(range(first, last + 1) for first, last in UNSPACED))
    return frozenset(code for code in codes if unicodedata.category(chr(code))[0] == "L")


def _class(codes: Iterable[int]) -> str:
    """Return a regular expression's character class of ascending code points, as ranges."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"
