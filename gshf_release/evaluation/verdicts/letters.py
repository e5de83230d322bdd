"""Read which of two letters a judge's reply names, weighed by the probabilities of the answer's first token.

AlpacaEval asks for one letter, `m` or `M`, and weighs the alternatives of the very first token that are spelled exactly so. A
judge with another tokenizer spells its letters otherwise (` m`, `Ġm`, `▁m`, `"m`), and one that thinks first puts its letters
further down. Here all spellings of a letter count together, at the first token of the answer; what the letters hold of that
token's probability tells whether they were what the judge was about to say at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gshf_release.evaluation.verdicts.thinking import set_aside

Entry = Mapping[str, Any]
"""A token of the reply or an alternative: `token`, `logprob`, perhaps `bytes`, `top_logprobs`."""
AROUND = " \t\r\n\"'`*_.,:;()[]{}<>#“”‘’"
"""What may stand around a letter that is a whole answer."""
BLANKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t", "č": "\r"})
"""How vocabularies write white space."""
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
LABELS = (
    "(?i:the|my|final|best|better|overall|preferred|model|answer|output|verdict|choice|decision|response|identifier|winner"
    "|is|i|choose|prefer|pick|select)"
)
"""Words of a line that says no more than a letter: `The best model is M`."""
FOLLOWED = re.compile(
    r"[\"'`*_)\]]*\s*(?:\Z|[.,:;(–—-]|\n|(?i:because|since|as|is\s+(?:the\s+)?(?:best|better|preferred))\b)"
)
"""What follows a letter that begins a text and is the verdict: not `M is worse than m`."""
ROUNDING = 1e-3
"""By how much a log-probability may exceed 0: servers print a few digits."""
MOST = 1.1
"""Beyond this sum, the alternatives' numbers are no probabilities of one token."""


@dataclass(frozen=True, slots=True)
class LetterWeights:
    """Holds what the letters hold of the answer's first token."""

    share: float
    """The probability of both letters together, 0 to 1."""
    second: float
    """Of that, the second letter's part, 0 to 1."""


@dataclass(frozen=True, slots=True)
class NamedLetter:
    """The letter that a text names."""

    letter: str
    several: bool = False
    """Whether it names the other one before; the last counts."""


def weigh(logprobs: object, first: str, second: str, text: str = "") -> LetterWeights | None:
    """Return what two letters hold of the first token of an answer; None if there are no probabilities of it.

    Args:
        logprobs: The reply's tokens as the server gave them; damaged entries count as absent.
        first: One letter.
        second: The other.
        text: The answer, where the tokens may hold thinking that the server has set aside.
    """
    tokens = [entry for entry in logprobs if isinstance(entry, Mapping)] if isinstance(logprobs, Sequence) else []
    place = _first_of_answer(tokens, text)
    if place is None:
        return None
    entry, word = tokens[place[0]], place[1]
    found = _alternatives(entry)
    if str(entry.get("token")) not in found or sum(value for _, value in found.values()) > MOST:
        return None
    held = {first: 0.0, second: 0.0}
    for token, value in found.values():
        letter = token.strip(AROUND)
        if letter in held:
            held[letter] += value
    begins_longer_word = spelled(entry).strip(AROUND) in held and word not in held  # the `M` of `Model`
    share = 0.0 if begins_longer_word else sum(held.values())
    return LetterWeights(min(1.0, share), held[second] / share if share > 0 else 0.0)


def exactly(logprobs: object, spellings: Sequence[str]) -> dict[str, float]:
    """Return `{spelling: probability}` of the very first token's alternatives, as alpaca_eval's library weighs them."""
    first = logprobs[0] if isinstance(logprobs, list) and logprobs and isinstance(logprobs[0], Mapping) else {}
    listed = first.get("top_logprobs")
    found: dict[str, float] = {}
    for each in listed if isinstance(listed, list) else []:
        value = probability(each.get("logprob")) if isinstance(each, Mapping) else None
        if value is not None and each.get("token") in spellings:
            found[each["token"]] = value
    return found


def named(text: str, first: str, second: str, *, cut: bool = False) -> NamedLetter | None:
    """Return the letter that an answer names, or None.

    A line that is nothing but a letter, perhaps after words such as `Answer:` or `Model`, names it; the last such line counts.
    Else the text may begin with a letter and a reason: `M because ...`, `M. It ...`.

    Args:
        text: The answer, without thinking.
        first: One letter.
        second: The other.
        cut: Whether its limit ended it: `Model m` may then have been going on.
    """
    either = f"{re.escape(first)}|{re.escape(second)}"
    statement = re.compile(rf"[\W_]*(?P<label>(?:{LABELS}[\W_]+)*)(?P<letter>{either})[\W_]*")
    lines = [line for line in re.sub(r"</?answer>", "", text).split("\n") if line.strip()]
    found = [match for line in lines if (match := statement.fullmatch(line))]
    if cut and found and found[-1]["label"] and found[-1].string == lines[-1]:
        return None
    if found:
        letters = [match["letter"] for match in found]
        return NamedLetter(letters[-1], len(set(letters)) > 1)
    begins = re.match(rf"[\W_]*({either})(?![^\W_])", text)
    words = WORD.findall(text)
    if begins and FOLLOWED.match(text, begins.end()) and words[1:2] not in ([first], [second]):
        return NamedLetter(begins[1])
    return None


def probability(value: object) -> float | None:
    """Return the probability that a log-probability stands for; None if it is none: null, a text, NaN, positive."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value <= ROUNDING:
        return None
    return math.exp(min(0.0, float(max(value, -1e6))))


def spelled(entry: Entry) -> str:
    """Return a token's text: its vocabulary's marks of white space replaced, its bytes read where it is no text."""
    token = entry.get("token")
    if not isinstance(token, str) or token.startswith(("token_id:", "bytes:")):
        values = entry.get("bytes")
        known = isinstance(values, list) and all(isinstance(each, int) and 0 <= each < 256 for each in values)
        return bytes(values).decode("utf-8", "replace") if known and values else ""
    return BYTE.sub(lambda match: chr(int(match[1], 16)), token).translate(BLANKS)


def _first_of_answer(tokens: Sequence[Entry], text: str) -> tuple[int, str] | None:
    """Return the place of the token that holds the answer's first letter or digit, and the word it begins; None without one."""
    pieces = [spelled(entry) for entry in tokens]
    whole = "".join(pieces)
    said, start = set_aside(text).text.strip(), set_aside(whole).start
    ends_with_it = bool(said) and whole.rstrip().endswith(said)
    if start is not None and ends_with_it and not whole[start:].startswith(said):
        start = len(whole.rstrip()) - len(said)
    word = None if start is None else WORD.search(whole, start)
    if word is None:
        return None
    end = 0
    for number, piece in enumerate(pieces):
        end += len(piece)
        if end > word.start():
            return number, word[0]
    return None


def _alternatives(entry: Entry) -> dict[str, tuple[str, float]]:
    """Return `{token: (its text, its probability)}` at a place; the token itself may be missing among those listed."""
    listed = entry.get("top_logprobs")
    if isinstance(listed, Mapping):  # the older form, {token: log-probability}
        listed = [{"token": token, "logprob": value} for token, value in listed.items()]
    found: dict[str, tuple[str, float]] = {}
    for each in [*(listed if isinstance(listed, list) else []), entry]:
        value = probability(each.get("logprob")) if isinstance(each, Mapping) else None
        if value is not None:
            found.setdefault(str(each.get("token")), (spelled(each), value))
    return found
