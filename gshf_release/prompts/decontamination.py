"""Keep benchmark prompts, and what is too close to them, out of the prompts that a model is trained on.

Three tests, each against every prompt of the benchmarks: the same words; eight words in a row in common; ROUGE-L F above the
threshold. Matching 13 words in a row, as is usual for documents, would find little here: an instruction of AlpacaEval has 18 on
average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gshf_release.errors import DataError, NetworkError
from gshf_release.prompts.benchmark_files import BENCHMARKS, BenchmarkPrompt, fetch, find
from gshf_release.prompts.rouge import THRESHOLD, SimilarityIndex
from gshf_release.prompts.words import normalised, words

N = 8
EXACT, OVERLAP, SIMILAR = "benchmark: same words", f"benchmark: {N} words in a row", "benchmark: ROUGE-L"
REASONS = (EXACT, OVERLAP, SIMILAR)


class Contamination(NamedTuple):
    """Records why a prompt is removed."""

    reason: str
    """One of `REASONS`; the first that applies, in that order."""
    key: str
    """The first benchmark prompt it applies to."""


class Decontaminator:
    """Knows the prompts of some benchmarks."""

    def __init__(self, prompts: Sequence[BenchmarkPrompt], threshold: float = THRESHOLD) -> None:
        self.keys = [prompt.key for prompt in prompts]
        self._same: dict[str, str] = {}
        self._runs: dict[tuple[str, ...], str] = {}
        for prompt in prompts:
            self._same.setdefault(normalised(prompt.text), prompt.key)
            for run in runs_of_words(prompt.text):
                self._runs.setdefault(run, prompt.key)
        self._index = SimilarityIndex(threshold)
        self._index.add([prompt.text for prompt in prompts])

    def check(self, texts: Sequence[str]) -> list[Contamination | None]:
        """Return for each text why it must be removed, or None."""
        return [
            self._literal(text) or (None if hit is None else Contamination(SIMILAR, self.keys[hit.position]))
            for text, hit in zip(texts, self._index.similar(texts), strict=True)
        ]

    def _literal(self, text: str) -> Contamination | None:
        same = self._same.get(normalised(text))
        if same is not None:
            return Contamination(EXACT, same)
        shared = next((self._runs[run] for run in runs_of_words(text) if run in self._runs), None)
        return None if shared is None else Contamination(OVERLAP, shared)


def runs_of_words(text: str, n: int = N) -> Iterator[tuple[str, ...]]:
    """Yield every n words in a row of a text."""
    found = words(text)
    for start in range(len(found) - n + 1):
        yield tuple(found[start : start + n])


def available(names: Sequence[str]) -> dict[str, str]:
    """Return why each benchmark cannot be checked against; an empty text means that it can. Files are fetched if need be.

    Raises:
        DataError: A file has another content than the pinned one.
    """
    told: dict[str, str] = {}
    for name in names:
        try:
            fetch(BENCHMARKS[name][0])
            told[name] = ""
        except NetworkError as error:
            told[name] = str(error)
    return told


def load(names: Sequence[str]) -> list[BenchmarkPrompt]:
    """Return the prompts of benchmarks whose files are on this machine.

    Raises:
        DataError: One is not.
    """
    prompts: list[BenchmarkPrompt] = []
    for name in names:
        file, read = BENCHMARKS[name]
        path = find(file)
        if path is None:
            raise DataError(f"{file.name} of {name} is no longer here.", hint="Run the same command again to fetch it.")
        prompts += read(path)
    return prompts
