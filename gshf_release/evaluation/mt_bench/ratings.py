"""The verdict in a judge's text: FastChat's rule to the letter, and the one for judges that no published number binds.

FastChat (fastchat/llm_judge/common.py) takes the first mark, one in the thinking of a reasoning model too, and where there is
none any number in brackets. That is kept for the official judges, GPT-4, whose stored judgments give the published numbers:
none of 3,850 has two ratings or needs the brackets. For every other judge the answer alone is read, without the thinking:

    the last `[[9]]` counts; `[[ 9 ]]`, `[[8.5]]`, `[[9/10]]`, `[[**9**]]`, full-width brackets and digits are the same
    `Rating: [9]`, or an answer that is nothing but `[9]`, counts where there is no double bracket
    a number without brackets is never a rating, nor are an index, a list, a link, a citation or a mark in code
    a rating outside 1-10, or one that is no number (`[[8-9]]`, `[[4/5]]`, `[[N/A]]`), is a failed judgment
    in a text that its limit cut, a rating counts only if it is the only one and closes the text or is labelled
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple

from gshf_release.evaluation.verdicts.reading import (
    CUT_AFTER,
    FASTCHAT_COUNTS,
    LAST_COUNTS,
    THOUGHT,
    Reading,
    Value,
    is_cut,
    without_verdict,
)
from gshf_release.evaluation.verdicts.thinking import QUOTES, Answer, set_aside

UNPARSED = -1.0
"""Stands for a judgment without a rating."""
WORST, BEST = 1.0, 10.0
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
FALLBACK = re.compile(r"\[(\d+\.?\d*)\]")
WINNERS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
"""Looked for in this order, anywhere in the text."""
NO_WINNER = "error"
NO_RATING = "no rating in the answer"
NO_VERDICT = "no verdict in the answer"
OFF_SCALE = "rating that is no number from 1 to 10"

MARK = re.compile(r"\[\s*\[([^\[\]\n]{1,24})\]\s*\]")
SINGLE = re.compile(r"\[([^\[\]\n]{1,12})\]")
LABELS = "rating|score|grade|verdict|评分|得分|分数|评级|評価|点数|점수|평점|bewertung|puntuación|valutazione|оценка"
LABELLED = re.compile(rf"(?i:(?:\b|(?<=[^\W\d_a-z]))(?:{LABELS}))[\s*_:=(`\"'-]{{0,8}}\Z")
"""A word that announces a rating, at the end of the text before it."""
SPOKEN = re.compile(rf"(?i:(?:{LABELS}))[\s*_]*:[\s*_]*\Z|(?i:(?:{LABELS}))\s+is:?\s*\Z")
"""The stricter form that single brackets need."""
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
GRADE = re.compile(
    r"(?:(?i:rating|score)\s*[:=]?\s*)?([+-]?\d{1,15}(?:\.\d{0,15})?)(?:\s*/\s*10(?:\.0)?|\s+out\s+of\s+10)?"
)
NO_GRADE = re.compile(r"[+-]?\s*\.?\d|nan\b|[+-]?inf|n/?a\b|none\b|null\b|[?-]+\Z", re.IGNORECASE)
"""What stands in the place of a rating and is none; other words in brackets, such as `[[rating]]`, are the prompt's own."""
LIST = re.compile(r"[^,;]+(?:[,;]\s+[^,;]+)+|[^,;]+(?:,[^,;]+){2,}")
WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("【】〔〕", "[][]")
"""Full-width signs of Chinese, Japanese and Korean texts, one for one."""


class RatingMark(NamedTuple, Generic[Value]):
    """One verdict in a text."""

    value: Value | None
    """None if it cannot be read."""
    start: int
    end: int


def rating(text: str) -> float:
    """Return the first `[[number]]`, else the first `[number]`, else -1, as FastChat does.

    Nothing checks the range: `[[11]]` gives 11.
    """
    found = RATING.search(text) or FALLBACK.search(text)
    return float(found.group(1)) if found else UNPARSED


def winner(text: str) -> str:
    """Return `A`, `B` or `tie`, whichever's sign the text holds (A's before B's before C's), else `error`, as FastChat does."""
    return next((name for sign, name in WINNERS.items() if sign in text), NO_WINNER)


def on_scale(score: float) -> bool:
    """Return whether a number is a rating of MT-Bench."""
    return WORST <= score <= BEST


def read_rating(
    text: str, finish_reason: str = "stop", reasoning: str = "", *, official: bool = False
) -> Reading[float]:
    """Return the rating in a judge's reply.

    Args:
        text: The reply, with its thinking if the server left it there.
        finish_reason: What the server says ended it.
        reasoning: Thinking that the server gave apart.
        official: Read it as FastChat does. A rating outside 1-10 is a failed judgment all the same.
    """
    if official:
        return _as_fastchat(
            text, finish_reason, rating(text), UNPARSED, len({*map(float, RATING.findall(text))}), NO_RATING
        )
    answer, plain = _plain(text)
    marks = [*_ratings(plain)] or [*_single_ratings(plain)]
    return _last(answer, plain, marks, finish_reason, reasoning, NO_RATING)


def read_winner(text: str, finish_reason: str = "stop", reasoning: str = "", *, official: bool = False) -> Reading[str]:
    """Return the winner, `A`, `B` or `tie`, in a judge's reply; arguments as of `read_rating`."""
    if official:
        return _as_fastchat(
            text, finish_reason, winner(text), NO_WINNER, sum(sign in text for sign in WINNERS), NO_VERDICT
        )
    answer, plain = _plain(text)
    return _last(answer, plain, [*_winners(plain)], finish_reason, reasoning, NO_VERDICT)


def _as_fastchat(
    text: str, finish_reason: str, value: Value, none: Value, different: int, nothing: str
) -> Reading[Value]:
    if value == none:
        return Reading(None, without_verdict(Answer(text, "", None), "", finish_reason, nothing))
    if isinstance(value, float) and not on_scale(value):
        return Reading(None, OFF_SCALE)
    return Reading(value, doubts=(FASTCHAT_COUNTS,) if different > 1 else ())


def _last(
    answer: Answer, plain: str, marks: Sequence[RatingMark[Value]], finish_reason: str, reasoning: str, nothing: str
) -> Reading[Value]:
    """Return the last verdict of an answer, with what makes one doubt it."""
    if not marks:
        return Reading(None, without_verdict(answer, reasoning, finish_reason, nothing))
    last, different = marks[-1], len({mark.value for mark in marks}) > 1
    cut = is_cut(finish_reason)
    if cut and (different or not _is_stated(plain, last)):
        return Reading(None, without_verdict(answer, reasoning, finish_reason, nothing))
    if last.value is None:
        return Reading(None, OFF_SCALE)
    doubts = [LAST_COUNTS] if different else []
    if cut:
        doubts.append(CUT_AFTER)
    if answer.thinking or reasoning.strip():
        doubts.append(THOUGHT)
    return Reading(last.value, doubts=tuple(doubts))


def _is_stated(plain: str, mark: RatingMark[Value]) -> bool:
    """Return whether a verdict in a text that was cut is one: it closes the text, or it is labelled and no quoted example."""
    if not re.search(r"\w", plain[mark.end :]):
        return True
    label = LABELLED.search(plain, 0, mark.start)
    return label is not None and (label.start() == 0 or plain[label.start() - 1] not in QUOTES)


def _plain(text: str) -> tuple[Answer, str]:
    """Return the answer of a reply, and its text with plain brackets and digits."""
    answer = set_aside(text)
    return answer, answer.text.translate(WIDE)


def _ratings(text: str) -> Iterator[RatingMark[float]]:
    """Yield what stands in the place of a rating in double brackets."""
    for match in _marks(text):
        content = match[1].strip(" \t*_\"'`")
        if GRADE.fullmatch(content) or (NO_GRADE.match(content) and not LIST.fullmatch(content)):
            yield RatingMark(_grade(content), match.start(), match.end())


def _single_ratings(text: str) -> Iterator[RatingMark[float]]:
    """Yield ratings in single brackets: labelled ones, or one that is the whole answer."""
    for match in SINGLE.finditer(text):
        content = match[1].strip(" \t*_\"'`")
        alone = not re.search(r"\w", text[: match.start()] + text[match.end() :])
        labelled = SPOKEN.search(text, 0, match.start()) is not None and not _is_code(text, match)
        if (alone or labelled) and (GRADE.fullmatch(content) or NO_GRADE.match(content)):
            yield RatingMark(_grade(content), match.start(), match.end())


def _winners(text: str) -> Iterator[RatingMark[str]]:
    names = {"A": "A", "B": "B", "C": "tie"}
    for match in _marks(text):
        content = re.sub(r"(?i)^assistant\s+", "", match[1].strip(" \t*_\"'`"))
        if content in names:
            yield RatingMark(names[content], match.start(), match.end())
        elif content.lower() == "tie":
            yield RatingMark("tie", match.start(), match.end())


def _marks(text: str) -> Iterator[re.Match[str]]:
    """Yield double brackets that are marks; in code only with a label, or as the answer's whole last line."""
    for match in MARK.finditer(text):
        labelled = LABELLED.search(text, 0, match.start()) is not None
        if text[match.end() : match.end() + 1] in ("[", "("):
            continue
        if labelled or not (_is_index(text[: match.start()]) or _is_code(text, match)) or _is_last_line(text, match):
            yield match


def _is_index(before: str) -> bool:
    """Return whether brackets after this text are an index, an argument, an assignment's or a list's: `x[[1]]`, `f([[1]])`."""
    return re.search(r"[A-Za-z0-9_\])]\Z|[A-Za-z0-9_\])]\(\Z|[\[=]\s*\Z", before) is not None


def _is_code(text: str, match: re.Match[str]) -> bool:
    return any(code.start() <= match.start() < code.end() for code in CODE.finditer(text))


def _is_last_line(text: str, match: re.Match[str]) -> bool:
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    return not re.search(r"\w", line + text[match.end() :])


def _grade(content: str) -> float | None:
    found = GRADE.fullmatch(content)
    value = float(found[1]) if found else UNPARSED
    return value if on_scale(value) else None
