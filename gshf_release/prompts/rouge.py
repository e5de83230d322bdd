"""Exact ROUGE-L similarity against many prompts: the near-copies of self-instruct (arXiv 2212.10560, F > 0.7), without loss.

ROUGE-L F of two prompts of m and n words is 2 LCS / (m + n), where LCS is the length of their longest common subsequence; the
decisions are those of the `rouge_score` package (no stemming), including its rounding at the threshold. Words: `words.py`.

A pair is looked at in three steps, each of which only discards pairs that cannot exceed the threshold:

1. lengths: LCS <= min(m, n);
2. signatures: the words of a prompt switch bits on and off (word i flips bit i modulo the width). Two signatures differ in at
   most as many bits as the prompts have words that the other lacks, which bounds the words they share and so their LCS;
3. the LCS itself, with rapidfuzz on strings of one character a word.

Steps 1 and 2 run in numpy over whole blocks, so the time hardly depends on how often single words occur.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from gshf_release.errors import DataError
from gshf_release.prompts.words import words

THRESHOLD = 0.7
"""Self-instruct drops an instruction whose ROUGE-L F with any other exceeds this."""
BLOCK = 1024
"""Prompts looked at together."""
PAIRS = 1 << 18
"""Pairs held at once, in the signature step and in the LCS step: bounds the memory."""
NONE = np.iinfo(np.int64).max

Integers = npt.NDArray[np.int64]


class Similar(NamedTuple):
    """The first prompt of an index that another one is too similar to."""

    position: int
    """Its place in the index, counting from 0 in the order of addition."""
    f: float
    """ROUGE-L F of the two."""


def rouge_l(lcs: int, m: int, n: int) -> float:
    """Return ROUGE-L F, computed in the order of operations of `rouge_score`, so that it rounds alike.

    Args:
        lcs: Length of the longest common subsequence, words.
        m: Words of one text.
        n: Words of the other.
    """
    if lcs == 0:
        return 0.0
    precision, recall = lcs / m, lcs / n
    return 2 * precision * recall / (precision + recall)


@cache
def needed(m: int, n: int, threshold: float) -> int:
    """Return the least LCS of texts of m and n words whose F exceeds the threshold; more than min(m, n) if none does."""
    lcs = max(1, int(threshold * (m + n) / 2) - 1)
    while lcs <= min(m, n) and rouge_l(lcs, m, n) <= threshold:
        lcs += 1
    return lcs


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt as the index compares it."""

    text: str
    """One character a word."""
    signature: int
    """Bit i modulo the width is the parity of the number of words with the number i."""


@dataclass(slots=True)
class Bucket:
    """Prompts of one length: their signatures, column by column, and their positions. Grows by doubling."""

    width: int
    signatures: npt.NDArray[np.uint64] = field(init=False)
    positions: Integers = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.signatures = np.zeros((self.width, 8), dtype=np.uint64)
        self.positions = np.zeros(8, dtype=np.int64)

    def append(self, signature: int, position: int) -> None:
        """Add one prompt."""
        if self.count == len(self.positions):
            self.signatures = np.concatenate([self.signatures, np.zeros_like(self.signatures)], axis=1)
            self.positions = np.concatenate([self.positions, np.zeros_like(self.positions)])
        self.signatures[:, self.count] = _columns(signature, self.width)
        self.positions[self.count] = position
        self.count += 1

    def folded(self, width: int) -> npt.NDArray[np.uint64]:
        """Return the signatures (width, count) at a smaller width."""
        return _fold(self.signatures[:, : self.count], width)


class SimilarityIndex:
    """Prompts, and the question whether another one is too similar to any of them."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._buckets: dict[int, Bucket] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, texts: Sequence[str]) -> None:
        """Add prompts without looking at what they are similar to."""
        for text in texts:
            self._append(self._encode(text))

    def similar(self, texts: Sequence[str]) -> list[Similar | None]:
        """Return for each text the first prompt of the index with F above the threshold, or None."""
        found: list[Similar | None] = []
        for start in range(0, len(texts), BLOCK):
            found += self._similar([self._encode(text) for text in texts[start : start + BLOCK]])
        return found

    def add_distinct(self, texts: Sequence[str]) -> list[Similar | None]:
        """Add, one after the other, each text that is similar to nothing in the index so far.

        Returns:
            None for a text that was added; for the others the first prompt that they are similar to.
        """
        found: list[Similar | None] = []
        for start in range(0, len(texts), BLOCK):
            found += self._add_distinct([self._encode(text) for text in texts[start : start + BLOCK]])
        return found

    def _add_distinct(self, block: list[Encoded]) -> list[Similar | None]:
        found = self._similar(block)
        among = SimilarityIndex(self.threshold)
        rest = [number for number, hit in enumerate(found) if hit is None]
        for number in rest:
            among._append(block[number])
        earlier: dict[int, list[int]] = {}
        for one, other in among._pairs([block[number] for number in rest]):
            if other < one:
                earlier.setdefault(rest[one], []).append(rest[other])
        positions: dict[int, int] = {}
        for number in rest:
            first = min((positions[other] for other in earlier.get(number, ()) if other in positions), default=None)
            if first is None:
                positions[number] = self._append(block[number])
            else:
                found[number] = self._result(block[number].text, first)
        return found

    def _similar(self, block: list[Encoded]) -> list[Similar | None]:
        first = np.full(len(block), NONE, dtype=np.int64)
        for number, position in self._pairs(block):
            first[number] = min(first[number], position)
        return [
            None if place == NONE else self._result(one.text, int(place))
            for one, place in zip(block, first, strict=True)
        ]

    def _result(self, text: str, position: int) -> Similar:
        other = self._texts[position]
        return Similar(position, rouge_l(LCSseq.similarity(text, other), len(text), len(other)))

    def _pairs(self, block: list[Encoded]) -> Iterator[tuple[int, int]]:
        """Yield `(number in the block, position)` of every pair above the threshold."""
        waiting: list[tuple[Integers, Integers, Integers]] = []
        held = 0
        for pairs in self._candidates(block):
            waiting.append(pairs)
            held += len(pairs[0])
            if held > PAIRS:
                yield from self._confirmed(block, waiting)
                waiting, held = [], 0
        if waiting:
            yield from self._confirmed(block, waiting)

    def _confirmed(
        self, block: list[Encoded], waiting: list[tuple[Integers, Integers, Integers]]
    ) -> Iterator[tuple[int, int]]:
        """Yield those candidates whose LCS is long enough."""
        numbers, positions, least = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        lengths = process.cpdist(
            [block[number].text for number in numbers.tolist()],
            [self._texts[position] for position in positions.tolist()],
            scorer=LCSseq.similarity,
            dtype=np.int64,
        )
        chosen = lengths >= least
        yield from zip(numbers[chosen].tolist(), positions[chosen].tolist(), strict=True)

    def _candidates(self, block: list[Encoded]) -> Iterator[tuple[Integers, Integers, Integers]]:
        """Yield `(numbers, positions, least LCS)` of the pairs that lengths and signatures leave."""
        by_length: dict[int, list[int]] = {}
        for number, one in enumerate(block):
            by_length.setdefault(len(one.text), []).append(number)
        by_length.pop(0, None)
        for m, chosen in by_length.items():
            numbers = np.array(chosen, dtype=np.int64)
            wide = np.stack([_columns(block[number].signature, _width(m)) for number in chosen], axis=1)
            for n, bucket in self._buckets.items():
                least = needed(m, n, self.threshold)
                if least > min(m, n):
                    continue
                width = min(_width(m), bucket.width)
                rows, columns = _close(_fold(wide, width), bucket.folded(width), m + n - 2 * least)
                if len(rows):
                    yield numbers[rows], bucket.positions[columns], np.full(len(rows), least, dtype=np.int64)

    def _append(self, one: Encoded) -> int:
        position = len(self._texts)
        self._texts.append(one.text)
        length = len(one.text)
        if length:
            bucket = self._buckets.get(length)
            if bucket is None:
                bucket = self._buckets[length] = Bucket(_width(length))
            bucket.append(one.signature, position)
        return position

    def _encode(self, text: str) -> Encoded:
        found = [self._numbers.setdefault(word, len(self._numbers)) for word in words(text)]
        if len(self._numbers) > sys.maxunicode:
            raise DataError(
                f"The prompts hold more than {sys.maxunicode} different words, too many to compare in one set.",
                hint="Divide them into several sets.",
            )
        bits = 64 * _width(len(found))
        signature = 0
        for number in found:
            signature ^= 1 << (number % bits)
        return Encoded("".join(map(chr, found)), signature)


def _width(length: int) -> int:
    """Return how many 64-bit words the signature of a text of `length` words has: a power of two, about 8 bits a word."""
    width = 2
    while width * 8 < length:
        width *= 2
    return width


def _columns(signature: int, width: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(signature.to_bytes(8 * width, "little"), dtype="<u8")


def _fold(columns: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint64]:
    """Return signatures at a smaller width: XORing the halves is the same as counting words modulo fewer bits."""
    while len(columns) > width:
        half = len(columns) // 2
        columns = columns[:half] ^ columns[half:]
    return columns


def _close(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64], limit: int) -> tuple[Any, Any]:
    """Return rows and columns of the pairs of signatures (width, a) and (width, b) that differ in at most `limit` bits."""
    step = max(1, PAIRS // max(1, left.shape[1]))
    rows, columns = [], []
    for start in range(0, right.shape[1], step):
        part = right[:, start : start + step]
        differing: npt.NDArray[Any] = np.bitwise_count(left[0][:, None] ^ part[0][None, :])
        if len(left) > 2:  # more than 255 bits may differ
            differing = differing.astype(np.uint16)
        for one, other in zip(left[1:], part[1:], strict=True):
            differing += np.bitwise_count(one[:, None] ^ other[None, :])
        row, column = np.nonzero(differing <= limit)
        rows.append(row)
        columns.append(column + start)
    return np.concatenate(rows), np.concatenate(columns)
