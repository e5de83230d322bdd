"""The prompts accepted so far, and what becomes of the next ones.

Decisions follow from the order of the prompts alone: no clock, no model, no files. A prompt is dropped for the first of these:
a rule filter (`filters.py`), the same words as a known prompt, a benchmark (`decontamination.py`), ROUGE-L with a known prompt
(`rouge.py`). Known are the seeds, the prompts of earlier runs, and those accepted before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Message, Prompt, Row
from gshf_release.prompts.decontamination import Decontaminator
from gshf_release.prompts.filters import reason_to_drop
from gshf_release.prompts.rouge import SimilarityIndex
from gshf_release.prompts.words import normalised
from gshf_release.recipe import Augmentation

DUPLICATE, NEAR_COPY = "same words", "near copy"
EXAMPLE_EVERY = 16
"""One accepted prompt in so many is shown to the writer, and is therefore no part of the set: of the set, the split may make
any prompt a validation or test prompt, and those never seed augmentation."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A written prompt and where it comes from."""

    text: str
    request: int
    item: int

    @property
    def prompt_id(self) -> str:
        """The id that the prompt has in every run."""
        return prompt_id(self.text)


@dataclass(frozen=True, slots=True)
class Accepted(Row):
    """A prompt that passed."""

    prompt_id: str
    prompt: str
    request: int
    item: int
    example: bool
    """It is shown to the writer, and is no part of the set."""


@dataclass(frozen=True, slots=True)
class Dropped(Row):
    """A prompt that did not, and why."""

    prompt_id: str
    prompt: str
    request: int
    item: int
    reason: str
    of: str
    """What it is too close to: the id of a known prompt or the key of a benchmark's; empty for a rule filter."""


def prompt_id(text: str) -> str:
    """Return the id of the conversation that consists of this one user turn."""
    return Prompt.of([Message(role="user", content=text)]).prompt_id


class Pool:
    """Takes candidates in order."""

    def __init__(
        self, settings: Augmentation, seed: int, known: Sequence[str], decontaminator: Decontaminator | None
    ) -> None:
        """Begin with what is known already.

        Args:
            settings: The recipe's section.
            seed: The run's seed.
            known: Texts of the seeds and of excluded prompts.
            decontaminator: None if no benchmark is to be kept out.
        """
        self.settings = settings
        self.seed = seed
        self.accepted: list[Accepted] = []
        self.dropped: list[Dropped] = []
        self.examples: list[str] = []
        """Texts of the accepted prompts that are shown to the writer."""
        self._decontaminator = decontaminator
        self._index = SimilarityIndex(settings.similarity)
        self._index.add(known)
        self._ids = [prompt_id(text) for text in known]
        self._same = {normalised(text): identity for text, identity in zip(known, self._ids, strict=True)}

    @property
    def count(self) -> int:
        """Return how many prompts the set has."""
        return len(self.accepted) - len(self.examples)

    def consider(self, candidates: Sequence[Candidate]) -> None:
        """Accept or drop each candidate, in order."""
        left = self._after(candidates, [self._by_rule(candidate) for candidate in candidates])
        left = self._after(left, self._by_same_words(left))
        left = self._after(left, self._by_benchmark(left))
        self._by_similarity(left)

    def is_example(self, identity: str) -> bool:
        """Return whether a prompt is one of those that are shown: decided by its content alone."""
        return seed_from(self.seed, "augmentation", "example", identity) % EXAMPLE_EVERY == 0

    def _after(self, candidates: Sequence[Candidate], reasons: Sequence[tuple[str, str] | None]) -> list[Candidate]:
        """Drop the candidates that have a reason; return the others."""
        left = []
        for candidate, reason in zip(candidates, reasons, strict=True):
            if reason is None:
                left.append(candidate)
            else:
                self._drop(candidate, *reason)
        return left

    def _by_rule(self, candidate: Candidate) -> tuple[str, str] | None:
        reason = reason_to_drop(candidate.text, self.settings.filters)
        return None if reason is None else (reason, "")

    def _by_same_words(self, candidates: Sequence[Candidate]) -> list[tuple[str, str] | None]:
        reasons: list[tuple[str, str] | None] = []
        for candidate in candidates:
            key = normalised(candidate.text)
            reasons.append((DUPLICATE, self._same[key]) if key in self._same else None)
            self._same.setdefault(key, candidate.prompt_id)
        return reasons

    def _by_benchmark(self, candidates: Sequence[Candidate]) -> list[tuple[str, str] | None]:
        if self._decontaminator is None:
            return [None] * len(candidates)
        found = self._decontaminator.check([candidate.text for candidate in candidates])
        return [None if hit is None else (hit.reason, hit.key) for hit in found]

    def _by_similarity(self, candidates: Sequence[Candidate]) -> None:
        found = self._index.add_distinct([candidate.text for candidate in candidates])
        for candidate, hit in zip(candidates, found, strict=True):
            if hit is None:
                self._accept(candidate)
            else:
                self._drop(candidate, NEAR_COPY, self._ids[hit.position])

    def _accept(self, candidate: Candidate) -> None:
        row = Accepted(candidate.prompt_id, candidate.text, candidate.request, candidate.item, False)
        if self.is_example(row.prompt_id):
            row = replace(row, example=True)
            self.examples.append(row.prompt)
        self._ids.append(row.prompt_id)
        self.accepted.append(row)

    def _drop(self, candidate: Candidate, reason: str, of: str) -> None:
        self.dropped.append(Dropped(candidate.prompt_id, candidate.text, candidate.request, candidate.item, reason, of))
