"""Counts over a set of texts: how varied they are, and which pattern a policy has taken up since the base.

A word is a run of letters, digits and apostrophes in lower case, or any other single sign; in scripts that do not separate
words, a whole run of letters counts as one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")
LIST_MARK = re.compile(r"(?:[-*+•–]|\d{1,3}[.)])\s")
ORDINARY_SIGNS = frozenset(".,;:?()'\"’“”")
"""Their share of all words follows from the length of sentences, so a rise of it is no pattern."""
OPENING_WORDS = 3
PHRASE_WORDS = 3

NEW_WORDS = 1_000_000
"""So many words are read before their n-grams are compared with those known."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, odd: multiplied by it, neighbouring numbers come to lie far apart."""

Kind = Literal["opening", "phrase", "line start", "word"]


def words(text: str) -> list[str]:
    """Return the words of a text in order."""
    return WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams in order; none if there are fewer than n tokens."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


class Variety:
    """Counts the different n-grams of texts that come one by one, in eight bytes each.

    They are told apart by 64-bit numbers: among a hundred million n-grams two are taken for one with a chance of 0.0003.
    """

    def __init__(self, *sizes: int) -> None:
        """Start without texts.

        Args:
            sizes: Every n that will be asked for.
        """
        self._numbers: dict[str, int] = {}
        self._known = {n: np.empty(0, np.uint64) for n in sizes}
        self._new: dict[int, list[npt.NDArray[np.uint64]]] = {n: [] for n in sizes}
        self._counts = dict.fromkeys(sizes, 0)
        self._waiting = 0

    def add(self, text: str) -> None:
        """Count a text."""
        found = [self._numbers.setdefault(word, len(self._numbers)) for word in words(text)]
        numbers = np.array(found, np.uint64)
        for n, new in self._new.items():
            grams = max(0, len(found) - n + 1)
            keys = numbers[:grams].copy()
            for place in range(1, n):
                keys = keys * MIXER + numbers[place : place + grams]
            new.append(keys)
            self._counts[n] += grams
        self._waiting += len(found)
        if self._waiting > NEW_WORDS:
            self._merge()

    def distinct(self, n: int) -> float | None:
        """Return distinct-n: different n-grams over all n-grams of the texts together (arXiv 1510.03055).

        It falls with the amount of text, so compare only sets of about the same size. None if there are no n-grams.
        """
        self._merge()
        return len(self._known[n]) / self._counts[n] if self._counts[n] else None

    def _merge(self) -> None:
        for n, new in self._new.items():
            ordered = np.sort(
                np.concatenate([self._known[n], *new])
            )  # numpy's own unique hashes, slowly where there are many
            self._known[n] = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
            new.clear()
        self._waiting = 0


def distinct(texts: Iterable[str], n: int) -> float | None:
    """Return distinct-n of texts, see `Variety`."""
    variety = Variety(n)
    for text in texts:
        variety.add(text)
    return variety.distinct(n)


def repeated(texts: Sequence[str]) -> list[bool]:
    """Return for each text whether another one is the same, apart from white space around it."""
    counts = Counter(text.strip() for text in texts)
    return [counts[text.strip()] > 1 for text in texts]


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Return the share of n-grams of tokens that have stood in the same sequence before, 0 to 1; 0 where there are none.

    It is seq-rep-n of Welleck et al. (arXiv 1908.04319): 1 - different n-grams / n-grams. Tokens, not words, so that it means
    something in every script.
    """
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def line_starts(text: str) -> list[str]:
    """Return how the lines begin that do not begin like prose: `list`, or the sign a line starts with, such as `#`."""
    found = []
    for line in text.splitlines():
        stripped = line.strip()
        if LIST_MARK.match(f"{stripped} "):
            found.append("list")
        elif stripped and not stripped[0].isalnum() and stripped[0] not in ORDINARY_SIGNS:
            found.append(stripped[0])
    return found


class Pattern(NamedTuple):
    """Something in the form of answers, and how much each answer has of it."""

    kind: Kind
    key: str
    own: list[float]
    """Per answer of the policy: 1 or 0 for an opening or a phrase, log(1 + lines) for a line start, so that one very long list
    does not outweigh many short ones, percent of all words for a word."""
    base: list[float]
    """The same of the base's answer to the same prompt."""

    @property
    def uses(self) -> tuple[list[float], list[float]]:
        """Policy's and base's use per answer in percent: whether it is there at all, or for a word its share of the words."""
        if self.kind == "word":
            return self.own, self.base
        own, base = ([100.0 * (value > 0) for value in values] for values in (self.own, self.base))
        return own, base

    @property
    def rise(self) -> float:
        """Mean rise of the use, in percentage points."""
        own, base = self.uses
        return sum(own) / len(own) - sum(base) / len(base)


def _opening(text: str) -> dict[str, float]:
    found = words(text)[:OPENING_WORDS]
    return {" ".join(found): 1.0} if found else {}


def _phrases(text: str) -> dict[str, float]:
    return {" ".join(gram): 1.0 for gram in ngrams(words(text), PHRASE_WORDS)}


def _line_starts(text: str) -> dict[str, float]:
    return {start: math.log1p(count) for start, count in Counter(line_starts(text)).items()}


def _words(text: str) -> dict[str, float]:
    found = words(text)
    return {word: 100.0 * n / len(found) for word, n in Counter(found).items() if word not in ORDINARY_SIGNS}


FEATURES: dict[Kind, Callable[[str], dict[str, float]]] = {
    "opening": _opening,
    "phrase": _phrases,
    "line start": _line_starts,
    "word": _words,
}


def risen(own: Sequence[str], base: Sequence[str]) -> list[Pattern]:
    """Return of each kind the pattern whose use rose most from the base's texts to the policy's; ties go by the alphabet.

    Args:
        own: The policy's answers; not empty.
        base: The base's answers to the same prompts, in the same order.
    """
    patterns = []
    for kind, features in FEATURES.items():
        found, before = [features(text) for text in own], [features(text) for text in base]
        gained: dict[str, float] = defaultdict(float)
        for sign, answers in ((1.0, found), (-1.0, before)):
            for answer in answers:
                for key, value in answer.items():
                    gained[key] += sign * (value if kind == "word" else 1.0)
        if gained:
            key = min(gained, key=lambda key: (-gained[key], key))
            patterns.append(
                Pattern(kind, key, *([answer.get(key, 0.0) for answer in side] for side in (found, before)))
            )
    return patterns
