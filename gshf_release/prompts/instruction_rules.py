"""Find the rules that a prompt states ("Use at most ten words.") and check whether a response keeps them.

Each kind of rule is one `Rule`: a pattern that finds it in a prompt, a pure function that checks a response, and a phrase with
which prompts are written (instruction_prompts.py). The kinds follow IFEval's idea of verifiable instructions (arXiv
2311.07911); the wording, the checks and the selection are this package's own. Patterns and checks are for English prompts.

A rule of your own is one more `Rule` in a list of your own; docs/rewards.md shows one in ten lines.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

RULES_VERSION = 1
"""Raised when a pattern or check changes what a score is: finished stages that checked rules are then redone."""

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]*_]*(?=\s|$)|[。！？]")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|[A-Z])\.$")
NUMBERS = {
    "zero": 0, "one": 1, "once": 1, "two": 2, "twice": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "twenty-five": 25, "thirty": 30, "forty": 40, "fifty": 50,
}  # fmt: skip
NUMBER = r"(\d{1,4}|" + "|".join(sorted(NUMBERS, key=len, reverse=True)) + ")"
QUOTED = r"[\"“']([^\"”“\n]{1,60}?)[\"”'](?![^\W_])"
COMMAS = frozenset(",，、")


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of instruction that a program can check."""

    name: str
    """Shown in tables: lower case, words joined by hyphens."""
    group: str
    """Rules of one group may contradict each other, so a written prompt has at most one of each group."""
    pattern: re.Pattern[str]
    """Finds the rule in a prompt; its groups are the arguments of `kept`."""
    kept: Callable[..., bool]
    """`kept(response, *arguments)`: whether the response keeps the rule."""
    phrase: str = ""
    """With which a prompt states it; `{}` for each argument. Empty for a rule that the generator never writes."""
    draw: Callable[[random.Random], Sequence[str]] = lambda _: ()
    """Returns the arguments of a prompt that is written."""
    required: bool = False
    """A response that breaks it scores zero, whatever else it keeps."""


class Found(NamedTuple):
    """One rule as a prompt states it."""

    rule: Rule
    arguments: tuple[str, ...]
    text: str
    """The words of the prompt that state it."""


class Check(NamedTuple):
    """One rule and whether a response keeps it."""

    rule: str
    kept: bool
    required: bool = False


def find_rules(prompt: str, rules: Sequence[Rule]) -> list[Found]:
    """Return the rules that a prompt states, in the order of `rules`; the same kind may be stated several times."""
    return [
        Found(rule, tuple(group for group in match.groups() if group is not None), match[0])
        for rule in rules
        for match in rule.pattern.finditer(prompt)
    ]


def check_rules(prompt: str, response: str, rules: Sequence[Rule], *, ended: bool = True) -> list[Check]:
    """Return, for each rule that the prompt states, whether the response keeps it.

    A response that was broken off, or that is degenerate (`is_degenerate`), keeps none.

    Args:
        prompt: The text that states the rules: the last user turn.
        response: The text that is checked.
        rules: The kinds to look for.
        ended: False for a response that the token limit cut off.
    """
    found = find_rules(prompt, rules)
    sound = ended and not is_degenerate(response, [entry.text for entry in found])
    return [
        Check(entry.rule.name, sound and bool(entry.rule.kept(response, *entry.arguments)), entry.rule.required)
        for entry in found
    ]


def share_kept(checks: Sequence[Check], *, all_or_nothing: bool = False) -> float:
    """Return the reward of a response: the share of its rules that it keeps, 0 if it breaks a required one.

    Required rules are a condition and do not enter the share unless there are no others. No rules at all give 1.

    Args:
        checks: From `check_rules`.
        all_or_nothing: Return 1 only if every rule is kept, else 0.
    """
    if not all(check.kept for check in checks if check.required):
        return 0.0
    if all_or_nothing:
        return float(all(check.kept for check in checks))
    counted = [check.kept for check in checks if not check.required]
    return sum(counted) / len(counted) if counted else 1.0


def is_degenerate(response: str, stated: Sequence[str] = ()) -> bool:
    """Return whether a response is no answer at all, however many rules it happens to keep.

    It has fewer than three words; or runs of three words or single words make up most of it by repetition; or it copies what
    the prompt asks for (a stated rule of four words or more) instead of doing it.
    """
    found = words(response)
    if len(found) < 3:
        return True
    counts = Counter(found)
    if len(found) >= 6 and (max(counts.values()) > len(found) / 2 or len(counts) < len(found) / 3):
        return True
    runs = Counter(zip(found, found[1:], found[2:], strict=False))
    if max(runs.values()) >= 3 and max(runs.values()) * 3 > len(found) / 2:
        return True
    return any(len(part) >= 4 and contains(found, part) for part in map(words, stated))


def words(text: str) -> list[str]:
    """Return the words in lower case: letters and digits, joined by hyphens or apostrophes ("well-known", "don't" are one)."""
    return [word.replace("’", "'") for word in WORD.findall(text.casefold())]


def sentences(text: str) -> list[str]:
    """Return the sentences: parts that end with . ! or ? before a space, and what is left at the end.

    A point inside a number or after an abbreviation ("3.5", "e.g.", "Dr. Who") ends none.
    """
    found, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if (
            match[0].startswith(".")
            and ABBREVIATION.search(text[start : match.start() + 1])
            and text[match.end() :].strip()
        ):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    return [part.strip() for part in (*found, text[start:]) if WORD.search(part)]


def contains(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether words stand in a text one after the other."""
    size = len(wanted)
    return size > 0 and any(list(found[at : at + size]) == list(wanted) for at in range(len(found) - size + 1))


def number_of(text: str) -> int:
    """Return the number that a prompt writes in digits or as a word."""
    return int(text) if text.isdecimal() else NUMBERS[text.casefold()]


def names_topic(response: str, topic: str) -> bool:
    """Return whether a response has every word of the topic in order, each also in its plural or possessive."""
    own, wanted = words(response), [word for word in words(topic) if word not in ("a", "an", "the", "your", "my")]

    def same(word: str, other: str) -> bool:
        ends = {other, f"{other}s", f"{other}es", f"{other}'s", f"{other}s'", f"{other.removesuffix('y')}ies"}
        return word in ends or other in {f"{word}s", f"{word}es", f"{word.removesuffix('y')}ies"}

    parts = [part for word in own for part in word.split("-")]
    wanted = [part for word in wanted for part in word.split("-")]
    size = len(wanted)
    return size > 0 and any(all(map(same, parts[at : at + size], wanted)) for at in range(len(parts) - size + 1))


def is_lower(response: str) -> bool:
    """Return whether a response has letters and no capital among them."""
    return any(map(str.isalpha, response)) and response == response.lower()


def is_upper(response: str) -> bool:
    """Return whether a response has letters and all of them are capitals, where the script has such."""
    return any(map(str.isalpha, response)) and not any(letter.islower() for letter in response)


def ends_with(response: str, marks: str) -> bool:
    """Return whether the last sign, closing quotation marks and asterisks aside, is one of `marks`."""
    return response.rstrip().rstrip("\"'”’*_)").endswith(tuple(marks))


def is_json(response: str) -> bool:
    """Return whether the whole response, a Markdown fence around it aside, is one JSON object or list."""
    text = re.sub(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", r"\1", response, flags=re.DOTALL)
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def bullets(response: str) -> int:
    """Return how many lines are bullet points."""
    return len(re.findall(r"^[ \t]*[-*•] +\S", response, re.MULTILINE))


def paragraphs(response: str) -> int:
    """Return how many paragraphs there are, separated by blank lines."""
    return sum(bool(part.strip()) for part in re.split(r"\n\s*\n", response))


def between_bounds(count: int, bound: str, number: str) -> bool:
    """Return whether a count keeps a bound such as `at most` ten."""
    bound, limit = " ".join(bound.casefold().split()), number_of(number)
    if bound in ("less than", "fewer than", "under"):
        return count < limit
    if bound in ("more than", "over"):
        return count > limit
    if bound in ("at least", "no fewer than", "no less than", "not less than", "a minimum of"):
        return count >= limit
    if bound == "exactly":
        return count == limit
    return count <= limit


NOT_NO = r"(?<!\bno\s)(?<!\bnot\s)"
AT_MOST = rf"(at most|no more than|not more than|up to|a maximum of|{NOT_NO}fewer than|{NOT_NO}less than|under)"
AT_LEAST = rf"(at least|no fewer than|no less than|not less than|a minimum of|{NOT_NO}more than|over)"
SEVERAL = WORD.findall("""
about above after again always because before behind between bright calm change clear cold deep early every evening family
favorite first future gentle good great happy hidden history home important inside joy kind large learn light little long
love many morning music never new nice often old once open outside people perfect quiet rare ready real season share simple
slow small soft something special still story strong summer sweet time today together true warm water wild winter wonder
world young
""")
OPENERS = WORD.findall("""
After Although At Because Before Bring Even Every For From Here If Imagine In Let Many Most My Never No Now Often On One Our
Perhaps Some Sometimes Take That The There These They This To Today Try We What When While With Without You
""")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("<number>", NUMBER).replace("<quoted>", QUOTED), re.IGNORECASE)


def _one(choices: Sequence[str]) -> Callable[[random.Random], Sequence[str]]:
    return lambda draw: (draw.choice(choices),)


def _counted(
    name: str, bound: str, unit: str, count: Callable[[str], int], phrase: str, numbers: Sequence[str], group: str = ""
) -> Rule:
    """Return a rule that bounds how many of a unit a response has."""
    return Rule(
        name,
        group or f"number of {unit}",
        _pattern(rf"\b{bound}\s+<number>\s+{unit}\b"),
        lambda response, *arguments: between_bounds(count(response), *arguments),
        phrase,
        _one(numbers),
    )


def _words_in(response: str) -> int:
    return len(words(response))


def _sentences_in(response: str) -> int:
    return len(sentences(response))


def _letters(response: str, letter: str, bound: str, number: str) -> bool:
    return between_bounds(response.casefold().count(letter.casefold()), bound, number)


TOPIC = Rule(
    "topic",
    "topic",
    _pattern(r"\bwrite\s+[^.?!\n]{0,60}?\babout\s+([^.?!,;:\n]+)"),
    names_topic,
    required=True,
)
"""What "Write ... about TOPIC." names has to stand in the answer; a reward without it forgets the topic."""
ONE_SENTENCE = Rule(
    "one-sentence",
    "layout",
    _pattern(r"\bwrite\s+(?:one|a\s+single)\s+(?:\w+\s+)?sentence\b"),
    lambda response: len(sentences(response)) == 1,
    required=True,
)

TRAINING_RULES: tuple[Rule, ...] = (
    Rule(
        "use-word",
        "word",
        _pattern(r"(?<!not\s)(?<!n't\s)(?<!never\s)\b(?:use|include|contain)s?\s+the\s+word\s+<quoted>"),
        lambda response, word: contains(words(response), words(word)),
        'Use the word "{}".',
        _one(SEVERAL),
    ),
    Rule(
        "first-word",
        "beginning",
        _pattern(r"\b(?:begin|start)s?\s+with\s+the\s+word\s+<quoted>"),
        lambda response, word: words(response)[: len(words(word))] == words(word),
        'Begin with the word "{}".',
        _one(OPENERS),
    ),
    Rule(
        "question-mark-at-end",
        "ending",
        _pattern(r"\bends?\s+with\s+a\s+question\s+mark"),
        lambda response: ends_with(response, "?？"),
        "End with a question mark.",
    ),
    Rule(
        "exclamation-mark-at-end",
        "ending",
        _pattern(r"\bends?\s+with\s+an\s+exclamation\s+(?:mark|point)"),
        lambda response: ends_with(response, "!！"),
        "End with an exclamation mark.",
    ),
    _counted("at-most-words", AT_MOST, "words", _words_in, "Use at most {} words.", ("seven", "eight", "nine", "ten")),
    _counted("at-least-words", AT_LEAST, "words", _words_in, "Use at least {} words.", ("15", "16", "18", "20")),
    Rule(
        "lower-case",
        "case",
        _pattern(r"\b(?:in\s+(?:all\s+)?|only\s+)lower[- ]?case(?:\s+letters)?(?:\s+only)?\b"),
        is_lower,
        "Write in lowercase letters only.",
    ),
    Rule(
        "number-in-digits",
        "digits",
        _pattern(r"\binclude\s+a\s+number\s+in\s+digits\b"),
        lambda response: re.search(r"[0-9]", response) is not None,
        "Include a number in digits.",
    ),
    Rule(
        "no-commas",
        "commas",
        _pattern(r"\b(?:use\s+no|without(?:\s+any)?|do\s+not\s+use(?:\s+any)?|avoid(?:\s+all)?)\s+commas?\b"),
        lambda response: not COMMAS & set(response),
        "Use no commas.",
    ),
)
"""The kinds that the package's training prompts state."""

HELD_OUT_RULES: tuple[Rule, ...] = (
    Rule(
        "last-word",
        "ending",
        _pattern(r"\bends?\s+with\s+the\s+word\s+<quoted>"),
        lambda response, word: words(response)[-len(words(word)) :] == words(word),
        'End with the word "{}".',
        _one(SEVERAL),
    ),
    Rule(
        "avoid-word",
        "word",
        _pattern(r"\b(?:do\s+not|don't|never)\s+(?:use|include|mention)\s+the\s+word\s+<quoted>"),
        lambda response, word: not contains(words(response), words(word)),
        'Do not use the word "{}".',
        _one(("the", "a", "is", "and", "of", "to")),
    ),
    Rule(
        "use-two-words",
        "word",
        _pattern(r"\b(?:use|include)\s+the\s+words\s+<quoted>\s+and\s+<quoted>"),
        lambda response, *both: all(contains(words(response), words(word)) for word in both),
        'Use the words "{}" and "{}".',
        lambda draw: draw.sample(SEVERAL, 2),
    ),
    Rule(
        "capital-letters",
        "case",
        _pattern(
            r"\b(?:in\s+(?:all\s+)?|only\s+)(?:capital\s+letters|capitals|upper[- ]?case(?:\s+letters)?)(?:\s+only)?\b"
        ),
        is_upper,
        "Write in capital letters only.",
    ),
    Rule(
        "quotation-marks",
        "beginning",
        _pattern(
            r"\b(?:wrap|put)\s+(?:the|your)\s+(?:whole\s+|entire\s+)?(?:answer|response|sentence)\s+in\s+double\s+quotation\s+marks"
        ),
        lambda response: re.fullmatch(r"\s*[\"“].+[\"”]\s*", response, re.DOTALL) is not None,
        "Put the whole answer in double quotation marks.",
    ),
    Rule(
        "one-comma",
        "commas",
        _pattern(r"\buse\s+exactly\s+one\s+comma\b"),
        lambda response: sum(response.count(comma) for comma in COMMAS) == 1,
        "Use exactly one comma.",
    ),
    Rule(
        "no-digits",
        "digits",
        _pattern(r"\b(?:use\s+no|without(?:\s+any)?)\s+digits\b"),
        lambda response: re.search(r"[0-9]", response) is None,
        "Use no digits.",
    ),
    Rule(
        "letter-frequency",
        "letters",
        _pattern(rf"\buse\s+the\s+letter\s+<quoted>\s+{AT_LEAST}\s+<number>(?:\s+times)?"),
        _letters,
        'Use the letter "{}" at least {} times.',
        lambda draw: (draw.choice("bcdfghklmpw"), draw.choice(("three", "four"))),
    ),
    _counted("exact-words", "(exactly)", "words", _words_in, "Use exactly {} words.", ("eight", "ten", "twelve")),
    _counted(
        "exact-sentences",
        "(exactly)",
        "sentences?",
        _sentences_in,
        "Write exactly {} sentences.",
        ("two", "three"),
        "layout",
    ),
)
"""The kinds that only the package's check of unseen rules states; a reward that reads them is never trained on them there."""

OTHER_RULES: tuple[Rule, ...] = (
    _counted(
        "at-most-sentences", AT_MOST, "sentences?", _sentences_in, "Use at most {} sentences.", ("two",), "layout"
    ),
    _counted(
        "at-least-sentences", AT_LEAST, "sentences?", _sentences_in, "Use at least {} sentences.", ("three",), "layout"
    ),
    _counted(
        "bullet-points", "(exactly)", "bullet points", bullets, "Give exactly {} bullet points.", ("three",), "layout"
    ),
    _counted("paragraphs", "(exactly)", "paragraphs", paragraphs, "Write exactly {} paragraphs.", ("two",), "layout"),
    Rule(
        "json",
        "layout",
        _pattern(r"\b(?:in|as)\s+(?:valid\s+)?JSON(?:\s+format)?(?:\s+only)?\b"),
        is_json,
        "Answer in JSON only.",
    ),
    Rule(
        "title",
        "beginning",
        _pattern(r"\btitle[^.\n]{0,40}\bin\s+double\s+angular\s+brackets"),
        lambda response: re.search(r"<<[^<>\n]*\w[^<>\n]*>>", response) is not None,
        "Begin with a title in double angular brackets.",
    ),
    Rule(
        "postscript",
        "ending",
        _pattern(r"\bpostscript\b"),
        lambda response: re.search(r"^\s*P\.\s?S\.?\s*\S", response, re.MULTILINE | re.IGNORECASE) is not None,
        "Add a postscript that begins with P.S.",
    ),
    Rule(
        "no-letter",
        "letters",
        _pattern(r"\b(?:do\s+not|never)\s+use\s+the\s+letter\s+<quoted>"),
        lambda response, letter: letter.casefold() not in response.casefold(),
        'Do not use the letter "{}".',
        _one("jqxzkv"),
    ),
)

INSTRUCTIONS: tuple[Rule, ...] = (TOPIC, ONE_SENTENCE, *TRAINING_RULES, *HELD_OUT_RULES, *OTHER_RULES)
"""What `reward: {checks: instructions}` knows."""


def named(rules: Sequence[Any], source: str) -> tuple[Rule, ...]:
    """Return rules as a tuple.

    Raises:
        ValueError: It is no list of `Rule`, or a name stands there twice.
    """
    if isinstance(rules, str) or not isinstance(rules, Sequence) or not all(isinstance(rule, Rule) for rule in rules):
        raise ValueError(f"{source} is no list of Rule")
    names = Counter(rule.name for rule in rules)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{source} has two rules called {twice[0]!r}")
    return tuple(rules)
