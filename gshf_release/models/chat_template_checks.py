"""Try a chat template before any work: whether every word of a conversation reaches the model, and whether an answer can end.

A template is a program from elsewhere. Some render content given as a list of parts alone (those of vision models), drop the
system turn or all turns but the last, cut or change long texts: training then goes on, on prompts without the user's words. So
each is given a conversation of marked words, and they are looked for in what it writes. Policies and reward models are tried
alike, each as it is rendered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError, TemplateError
from gshf_release.models import chat_template
from gshf_release.models.chat_template import Today, render_text
from gshf_release.models.chat_tokenizer import NO_SYSTEM_TURN, ConversationRenderer, render, turns_of
from gshf_release.models.control_tokens import control_tokens
from gshf_release.models.gguf_loading import template_beside
from gshf_release.recipe import Prompts

WORDS_A_TURN = 2000
"""Marked words of a turn, some 20,000 characters: a template that cuts long texts loses some of them."""
MARKED = re.compile(r"Wq\d+x\d+z")
AROUND = ("{}", "{},", "({})", '"{}"', "R&{}", "<b>{}</b>", "naïve{}", "日本{}", "{{{}}}", "C:\\{}")
"""What stands around marked words in turn; a template that escapes or changes text loses some of it."""
PER_LINE = 12


def check_policy(tokenizer: Any, place: str, rules: Prompts, *, system: bool, today: Today = datetime.now) -> None:
    """Refuse a policy's chat template that raises, or loses words of a prompt with an earlier turn.

    Args:
        tokenizer: The policy's.
        place: Where the template stands, for the message.
        rules: How the recipe renders.
        system: Whether prompts have a system turn.
        today: The date that the template is told, if it asks.

    Raises:
        CheckpointError: There is no template, it raises, or it loses words.
    """
    chat_template.require(tokenizer)
    asked: list[str] = ["user", "assistant", "user"]
    conversation = marked(["system", *asked] if system else asked)
    render(tokenizer, conversation, rules, today=today)

    def text_of(messages: Sequence[Message]) -> str:
        return render_text(tokenizer, turns_of(messages, rules), answer_follows=True, today=today)

    _require_words(text_of, conversation, place, "Give the base another chat_template.jinja, one that writes")


def check_reward(tokenizer: Any, place: str, *, pairwise: bool = False, today: Today | None = None) -> None:
    """Refuse a reward model's chat template that raises, or loses words of a conversation as it is rendered for it.

    Raises:
        CheckpointError: It raises, or loses words.
    """
    renderer = ConversationRenderer(tokenizer, today)
    if not renderer.has_template:
        return  # an encoder reads a pair of texts, nothing in between
    asked: list[str] = ["user"] if pairwise else ["system", "user", "assistant", "user", "assistant"]
    conversation = marked(asked)

    def text_of(messages: Sequence[Message]) -> str:
        return renderer.template_text(messages, answer_follows=pairwise)

    _require_words(
        text_of, conversation, place, "Give the reward model another chat_template.jinja, or take another one"
    )


def marked(roles: Sequence[str]) -> list[Message]:
    """Return a conversation of words that no template writes by itself, each of them but once."""
    return [Message(role=role, content=_marked_text(number)) for number, role in enumerate(roles)]


def _marked_text(turn: int) -> str:
    words = [AROUND[at % len(AROUND)].format(f"Wq{turn}x{at}z") for at in range(WORDS_A_TURN)]
    return "\n".join(" ".join(words[at : at + PER_LINE]) for at in range(0, len(words), PER_LINE))


def _require_words(
    text_of: Callable[[Sequence[Message]], str], conversation: Sequence[Message], place: str, way_out: str
) -> None:
    """Refuse a template in whose text words of the conversation are missing.

    Raises:
        TemplateError: Names the template, the turn and how many words are lost.
    """
    text = text_of(conversation)
    lost = {number: _lost(turn["content"].split(), text) for number, turn in enumerate(conversation)}
    damaged = [number for number, words in lost.items() if words]
    if not damaged:
        return
    first = next((number for number in damaged if conversation[number]["role"] != "system"), damaged[0])
    whole = len(conversation[first]["content"].split())
    left = whole - len(lost[first])
    amount = f"only {left:,} of {whole:,} words" if left else "none of the words"
    reason = f"{amount} of {_turn_name(conversation, first)} reach the model"
    if _keeps_parts(text_of, conversation):
        reason += "; it renders content given as a list of parts alone, as templates of vision models do"
    hint = f"{way_out} message['content'] of every turn."
    if conversation[first]["role"] == "system":
        hint = NO_SYSTEM_TURN
    raise TemplateError(f"The chat template {place} loses words: {reason}.", hint=hint)


def _lost(words: Sequence[str], text: str) -> list[str]:
    """Return the words that a text does not hold; found as marks first, since looking each up in a long text takes long."""
    marks = set(MARKED.findall(text))
    pieces = set(text.split())
    return [word for word in words if MARKED.findall(word)[0] not in marks or (word not in pieces and word not in text)]


def _keeps_parts(text_of: Callable[[Sequence[Message]], str], conversation: Sequence[Message]) -> bool:
    """Return whether the words come through where content is given as a list of parts; a system turn may be folded."""
    turns = [turn for turn in conversation if turn["role"] != "system"]
    parts: Any = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    try:
        text = text_of(parts)
    except CheckpointError:
        return False
    return not any(_lost(turn["content"].split(), text) for turn in turns)


def _turn_name(conversation: Sequence[Message], number: int) -> str:
    role = conversation[number]["role"]
    if role == "system":
        return "the system turn"
    earlier = "last" if number == len(conversation) - 1 else "earlier"
    return f"the {role}'s {earlier} turn"


def answer_ends(tokenizer: Any, today: Today = datetime.now) -> list[int]:
    """Return the control tokens that the template writes after an answer, up to the next turn's words.

    Some templates end an answer with the beginning of the next turn, so one is added where nothing follows the answer.
    """
    why, so, then = (
        Message(role="user", content="Why?"),
        Message(role="assistant", content="Because."),
        Message(role="user", content="And how?"),
    )
    for turns in ([why, so], [why, so, then]):
        text = render_text(tokenizer, turns, answer_follows=False, today=today)
        after = text.rpartition(so["content"])[2].partition(then["content"])[0]
        controls = set(control_tokens(tokenizer)) | set(map(str, tokenizer.all_special_tokens))
        known = {int(tokenizer.convert_tokens_to_ids(token)) for token in controls}
        found = [int(token) for token in tokenizer(after, add_special_tokens=False)["input_ids"] if token in known]
        if found:
            return found
    return []


def check_turn_end(tokenizer: Any, place: str, stops: Sequence[int], today: Today = datetime.now) -> str:
    """Refuse a template that ends an answer with a control token at which no engine stops.

    Returns:
        A warning where it writes no control token after an answer at all; else nothing.

    Raises:
        TemplateError: Names the token and how it becomes one that ends an answer.
    """
    ends = answer_ends(tokenizer, today)
    if not ends:
        return "it ends an answer with no control token: an answer stops only if the base learnt to write its EOS"
    if set(ends) & set(stops):
        return ""
    token, known = tokenizer.convert_ids_to_tokens(ends[0]), tokenizer.convert_ids_to_tokens(list(stops))
    raise TemplateError(
        f"The chat template {place} ends an answer with {token!r} (token {ends[0]}), which is no stop token "
        f"({', '.join(map(repr, known))}): every answer would run to its limit.",
        hint=f"Set eos_token_id to {sorted({*stops, ends[0]})} in the base's generation_config.json.",
    )


def template_place(path: Path) -> str:
    """Return where the chat template of a checkpoint folder or GGUF file stands."""
    if path.suffix == ".gguf":
        beside = template_beside(path)
        return f"in {path}" if beside is None else str(beside)
    own = path / "chat_template.jinja"
    return str(own if own.is_file() else path / "tokenizer_config.json")
