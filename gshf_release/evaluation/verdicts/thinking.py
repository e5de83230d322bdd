"""Set a judge's thinking aside, so that a verdict is read from its answer alone.

Models that think aloud mark it, each family in its own way, and servers pass the marks through unless they run a parser for
that family. A mark may lack its counterpart: chat templates often put the opening one into the prompt, so that the text
begins inside the thinking, and a limit may end the text there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAMES = "think|thinking|thought|thoughts|reasoning|scratchpad|reflection|inner_monologue|seed:think|longcat_think"
"""Tags of DeepSeek, Qwen, EXAONE, Seed, LongCat and others."""
OPENING = (
    rf"(?i:(?:<|&lt;)\s*(?:{NAMES})\b[^<>]{{0,80}}?(?<!/)(?:>|&gt;))",
    r"\[THINK\]",  # Magistral
    "◁think▷",  # Kimi
    r"<\|begin_of_thought\|>",  # OpenThinker, Sky-T1
    r"<\|START_THINKING\|>",  # Command A Reasoning
    r"<\|(?:think|thinking|think_start|thinking_start)\|>",
    r"<\|inner_prefix\|>",  # Apertus
    r"<unused94>",  # MedGemma
    r"<\|channel>\s*thought\b",  # Gemma
    r"^Here(?: is|'s) my thought process:",  # Granite
)
CLOSING = (
    rf"(?i:(?:<|&lt;)\s*/\s*(?:{NAMES})\s*(?:>|&gt;))",
    r"\[/THINK\]",
    "◁/think▷",
    r"<\|end_of_thought\|>",
    r"<\|END_THINKING\|>",
    r"<\|(?:/think|/thinking|think_end|thinking_end)\|>",
    r"<\|inner_suffix\|>",
    r"<unused95>",
    r"<channel\|>",
    r"^Here(?: is|'s) my response:",
)
"""Each beside its counterpart in `OPENING`; any of them ends any thinking, since models mix them up."""
MARK = re.compile(f"(?P<open>{'|'.join(OPENING)})|(?P<close>{'|'.join(CLOSING)})", re.MULTILINE)
QUOTES = "`'\"“”‘’«»"
HARMONY = re.compile(
    r"<\|channel\|>\s*final\b(?:(?!<\|message\|>).){0,80}<\|message\|>(.*?)(?=<\|(?:end|return|start|call|channel)\|>|\Z)",
    re.DOTALL,
)
"""The answer in gpt-oss's format; all other channels are thinking or calls of tools."""
HARMONY_BARE = re.compile(r"\A\s*(?:assistant\s*)?(?:analysis|commentary)(?=[A-Z\"'“‘\[(*])")
"""How a text in that format begins once its special tokens were dropped."""
HARMONY_BARE_FINAL = "assistantfinal"


@dataclass(frozen=True, slots=True)
class Answer:
    """A text with its thinking set aside."""

    text: str
    """The answer; empty if the text ends within the thinking."""
    thinking: str
    start: int | None
    """Where the first sign of the answer stands in the whole text, or None if there is no answer."""


def set_aside(text: str) -> Answer:
    """Return the answer in a text and the thinking in it.

    A closing mark without an opening one ends a thinking that began before the text: all before it is thinking. An opening
    mark without a closing one leaves no answer after it. A mark in quotes is spoken of, not used.
    """
    if "<|channel|>" in text:
        return _pieces(text, [match.span(1) for match in HARMONY.finditer(text)][-1:])
    if HARMONY_BARE.match(text):
        place = text.rfind(HARMONY_BARE_FINAL)
        return _pieces(text, [] if place < 0 else [(place + len(HARMONY_BARE_FINAL), len(text))])
    spans: list[tuple[int, int]] = []
    begin: int | None = 0  # of the answer's current piece; None within the thinking
    for mark in MARK.finditer(text):
        if _is_quoted(text, mark.start(), mark.end()):
            continue
        if mark["close"]:
            if begin is not None:
                spans.clear()
            begin = mark.end()
        elif begin is not None:
            spans.append((begin, mark.start()))
            begin = None
    if begin is not None:
        spans.append((begin, len(text)))
    return _pieces(text, spans)


def _is_quoted(text: str, start: int, end: int) -> bool:
    return start > 0 and end < len(text) and text[start - 1] in QUOTES and text[end] in QUOTES


def _pieces(text: str, spans: list[tuple[int, int]]) -> Answer:
    """Return the answer that stands in `spans`; what is left is the thinking."""
    between, place = [], 0
    for start, end in spans:
        between.append(text[place:start])
        place = end
    between.append(text[place:])
    thinking = "\n".join(piece for each in between if (piece := MARK.sub("", each).strip()))
    starts = [start + len(piece) - len(piece.lstrip()) for start, end in spans if (piece := text[start:end]).strip()]
    answer = "".join(text[start:end] for start, end in spans)
    return Answer(answer if answer == text else answer.strip(), thinking, starts[0] if starts else None)
