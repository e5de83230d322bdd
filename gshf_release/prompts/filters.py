"""Rules that drop a written prompt by its looks, after self-instruct (arXiv 2212.10560). The text itself is never changed."""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from gshf_release.prompts.words import normalised, word_count
from gshf_release.recipe import Filters

PROGRAM = re.compile(
    r"write (a|an|the) ((computer|simple|short|python|java|javascript|typescript|c|c\+\+|c#|go|rust|ruby|sql|bash) )?"
    r"(program|function)\b",
    re.IGNORECASE,
)
CUT_MARKS = (*",;:-–—([{<&+=/\\", "...", "…")
CUT_WORDS = frozenset({"and", "or", "but", "a", "an", "the"})

Rule = Callable[[str, Filters], bool]


def reason_to_drop(text: str, filters: Filters) -> str | None:
    """Return the name of the first rule that drops a prompt, or None."""
    return next((name for name, rule in RULES.items() if rule(text, filters)), None)


def _too_short(text: str, filters: Filters) -> bool:
    return word_count(text) < filters.minimum_words


def _too_long(text: str, filters: Filters) -> bool:
    return 0 < filters.maximum_words < word_count(text)


def _blacklisted(text: str, filters: Filters) -> bool:
    padded = f" {normalised(text)} "
    return any(f" {normalised(phrase)} " in padded for phrase in filters.blacklist)


def _leading_punctuation(text: str, filters: Filters) -> bool:
    return filters.leading_punctuation and text.lstrip()[:1] in set(string.punctuation)


def _leading_non_ascii(text: str, filters: Filters) -> bool:
    return filters.leading_non_ascii and not text.lstrip()[:1].isascii()


def _program_writing(text: str, filters: Filters) -> bool:
    return filters.program_writing and PROGRAM.match(text.lstrip()) is not None


def _cut_ending(text: str, filters: Filters) -> bool:
    stripped = text.rstrip()
    last = stripped.split()[-1].lower() if stripped else ""
    return filters.cut_ending and (stripped.endswith(CUT_MARKS) or last in CUT_WORDS)


RULES: dict[str, Rule] = {
    "too short": _too_short,
    "too long": _too_long,
    "blacklisted word": _blacklisted,
    "leading punctuation": _leading_punctuation,
    "leading non-ASCII": _leading_non_ascii,
    "program writing": _program_writing,
    "cut ending": _cut_ending,
}
"""Every rule by its name, in the order they are asked."""
