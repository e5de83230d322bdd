"""Chat templates as the programs they are: one place runs them, on one date, and says what they raise in one line.

A template may ask for today's date (Llama 3.2's and gpt-oss's do). A prompt that changes at midnight is another prompt, so
whoever renders passes a clock (`Today`): in a run that of the run, whose date is written down once.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError, TemplateError

Today = Callable[[], datetime]
"""Returns the date that a chat template is told; it is called only for a template that asks."""

ASKS_FOR_DATE = "strftime_now"
"""The one function through which transformers tells a template the date."""

PINNED_DATE = (
    "{%- macro strftime_now(format) -%}{%- set written = namespace(text=format) -%}"
    "{%- for directive, value in date_directives -%}"
    "{%- set written.text = written.text.replace(directive, value) -%}"
    "{%- endfor -%}{{- written.text -}}{%- endmacro %}\n"
)
"""Put before a template, it answers `strftime_now` from the table `date_directives`: transformers lets no function through to a
template, and text only. The line end goes with the block before it, so the template itself begins a line as it always did."""

NO_TEMPLATE = "Use an instruction-tuned base model, or add chat_template.jinja to its folder."
SHOWN_SOURCE = 60
"""Characters of a template's line in a message at most."""


def require(tokenizer: Any) -> None:
    """Refuse a tokenizer without a chat template.

    Raises:
        CheckpointError: It has none.
    """
    if not getattr(tokenizer, "chat_template", None):
        name = str(tokenizer.name_or_path)
        hint = NO_TEMPLATE
        if name.endswith(".gguf"):
            hint = (
                f"Use an instruction-tuned base model, or write its template into {name.removesuffix('.gguf')}.jinja."
            )
        raise CheckpointError(f"The tokenizer of {name!r} has no chat template.", hint=hint)


def source(tokenizer: Any) -> str:
    """Return the text of the template that a conversation is rendered with; of several with names, the default one's.

    Raises:
        TemplateError: There are several, and none is the default.
    """
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise TemplateError(f"{tokenizer.name_or_path!r}: {_one_line(error)}.") from error


def asks_for_date(tokenizer: Any) -> bool:
    """Return whether the template may write the date of the day into a prompt."""
    return ASKS_FOR_DATE in source(tokenizer)


def render_text(
    tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool, today: Today, **variables: str
) -> str:
    """Return a conversation as its chat template writes it.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns.
        answer_follows: End where the assistant begins to speak.
        today: The date, for a template that asks for it.
        variables: What the template finds under a name instead of the tokenizer's own value, for example `bos_token=""`.

    Raises:
        TemplateError: The template is no Jinja, or refuses the conversation; names its line where there is one.
    """
    template, dates = source(tokenizer), {}
    pinned = asks_for_date(tokenizer)
    if pinned:
        template, dates = PINNED_DATE + template, {"date_directives": _directives(today())}
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(turn) for turn in messages],
                chat_template=template,
                add_generation_prompt=answer_follows,
                tokenize=False,
                **dates,
                **variables,
            )
        )
    except Exception as error:  # a template is a program: it raises whatever it likes
        raise _refusal(tokenizer, template, messages, error, first_line=2 if pinned else 1) from error


def _directives(moment: datetime) -> list[list[str]]:
    """Return `[directive, what it stands for]` of everything that `strftime` knows, `%%` first and last."""
    letters = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZf"
    known = [f"%{flag}{letter}" for flag in ("", "-", "_", "^", "#", "0") for letter in letters]
    table = [[directive, moment.strftime(directive)] for directive in known]
    return [["%%", "\0"], *([key, value] for key, value in table if key != value), ["\0", "%"]]


def _refusal(
    tokenizer: Any, template: str, messages: Sequence[Message], error: Exception, first_line: int
) -> TemplateError:
    """Return what a template raised as one line."""
    from jinja2 import TemplateError as JinjaError
    from jinja2 import TemplateSyntaxError

    place = f"The chat template of {tokenizer.name_or_path!r}"
    at = error.lineno if isinstance(error, TemplateSyntaxError) else _line_of(error)
    lines = template.splitlines()
    text = lines[at - 1].strip() if at is not None and 0 < at <= len(lines) else ""
    shown = f" ({text[:SHOWN_SOURCE]}{'...' if len(text) > SHOWN_SOURCE else ''})" if text else ""
    where = "" if at is None else f"line {max(1, at - first_line + 1)}{shown}: "
    if isinstance(error, TemplateSyntaxError):
        return TemplateError(f"{place} is no valid Jinja: {where}{_one_line(error)}.")
    if type(error) is JinjaError:  # raise_exception: the author's own words say enough
        where = ""
    roles = ", ".join(turn["role"] for turn in messages)
    return TemplateError(f"{place} refuses a conversation of the turns {roles}: {where}{_one_line(error)}.")


def _line_of(error: Exception) -> int | None:
    """Return the line of the template at which it raised; jinja2 calls the file of its frames <template>."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
