"""Control tokens that somebody wrote into a message: they reach a model as the text they are, never as control tokens.

transformers renders a conversation to one string and cuts it at every added token, whoever wrote it. Here those of the
template are told from those of the messages before the string is cut, and the whole string is still tokenised at once: cut into
pieces, a tokenizer that begins a text with "▁" (SentencePiece's, as in Llama and Mistral) would do so at every piece.

Control tokens are a tokenizer's special tokens, and those of its other added tokens that look like a control mark: `<...>` or
`[...]` with a letter in it, such as `<tool_call>`, `</think>` and `[INST]`. Added tokens that are ordinary text stay what the
tokenizer makes of them: runs of spaces and line ends (Phi, GPT-NeoX, Gemma), words, and names of HTML elements (Gemma's
`<table>`), unless the chat template writes one of these itself.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError
from gshf_release.models.chat_template import Today, render_text

PRIVATE = range(0xF0000, 0xFFFFD)
"""Code points that Unicode leaves to private use; they stand for control tokens while a conversation is rendered."""
CONTROL_MARK = re.compile(r"<(?=[^<>]*[^\W\d_])[^<>]+>|<<[^<>]+>>|\[(?=[^\[\]]*[^\W\d_])[^\[\]]+\]")
HTML_ELEMENT = re.compile(
    r"</?(a|abbr|address|article|aside|audio|b|base|bdi|bdo|blockquote|body|br|button|canvas|caption|cite|code|col|colgroup"
    r"|data|datalist|dd|del|details|dfn|dialog|div|dl|dt|em|embed|fieldset|figcaption|figure|footer|form|h[1-6]|head|header"
    r"|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|menu|meta|meter|nav|noscript|object|ol|optgroup"
    r"|option|output|p|picture|pre|progress|q|rp|rt|ruby|s|samp|script|section|select|small|source|span|strike|strong|style"
    r"|sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr) ?/?>",
    re.IGNORECASE,
)


def template_ids(
    tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool, today: Today = datetime.now, **variables: str
) -> list[int]:
    """Return the ids that transformers' `apply_chat_template` gives: control tokens in messages are control tokens.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns.
        answer_follows: End where the assistant begins to speak.
        today: The date, for a template that asks for it.
        variables: What the template finds under a name instead of the tokenizer's own value, for example `bos_token=""`.

    Raises:
        TemplateError: The template refuses the conversation.
    """
    text = render_text(tokenizer, messages, answer_follows=answer_follows, today=today, **variables)
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def text_ids(
    tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool, today: Today = datetime.now, **variables: str
) -> list[int]:
    """Return the same ids, but with the control tokens inside messages as text.

    A conversation without any gets exactly the ids of `template_ids`.

    Raises:
        CheckpointError: A message holds a control token, and the tokenizer cannot keep it as text.
        TemplateError: The template refuses the conversation.
    """
    how: dict[str, Any] = {"answer_follows": answer_follows, "today": today, **variables}
    controls = control_tokens(tokenizer)
    texts = [turn["content"] for turn in messages]
    written = _written(controls, texts)
    if not written:
        return template_ids(tokenizer, messages, **how)
    marks = _absent(texts, len(controls) + len(written))
    stand_ins = dict(zip(controls, marks, strict=False))
    hidden = dict(zip(written, marks[len(controls) :], strict=True))
    turns = [Message(role=turn["role"], content=_replaced(turn["content"], hidden)) for turn in messages]
    rendered = render_text(tokenizer, turns, **how)
    marked = _replaced(_replaced(rendered, stand_ins), {mark: token for token, mark in hidden.items()})
    return _encoder(tokenizer, tuple(stand_ins.items())).ids(marked)


def pair_ids(tokenizer: Any, first: str, second: str) -> list[int]:
    """Return the ids of two texts as an encoder such as BERT reads them, with control tokens in them as text."""
    controls = control_tokens(tokenizer)
    if not _written(controls, (first, second)):
        return [int(token) for token in tokenizer(first, second)["input_ids"]]
    stand_ins = tuple(zip(controls, _absent((first, second), len(controls)), strict=True))
    return _encoder(tokenizer, stand_ins).pair_ids(first, second)


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the texts of a tokenizer's control tokens: the special ones, and others that look like one."""
    template = getattr(tokenizer, "chat_template", None)
    known = json.dumps(template) if isinstance(template, dict) else template or ""
    return _control_tokens(tokenizer, known)


@lru_cache(maxsize=16)
def _control_tokens(tokenizer: Any, template: str) -> tuple[str, ...]:
    """Return them, looked up once for a tokenizer and a template: thousands of added tokens take milliseconds to list."""
    known = getattr(tokenizer, "added_tokens_decoder", {})
    return tuple(str(token) for token in known.values() if token.special or _looks_like_control(str(token), template))


def _looks_like_control(token: str, template: str) -> bool:
    return CONTROL_MARK.fullmatch(token) is not None and (HTML_ELEMENT.fullmatch(token) is None or token in template)


def _written(controls: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return the control tokens that texts hold; texts without the first character of any are told at a glance."""
    if not any(first in text for first in {token[0] for token in controls} for text in texts):
        return []
    return [token for token in controls if any(token in text for text in texts)]


def _replaced(text: str, table: dict[str, str]) -> str:
    """Return the text with every key replaced by its value; of keys that overlap the longest counts, as in tokenizers."""
    anywhere = re.compile("|".join(sorted(map(re.escape, table), key=len, reverse=True)))
    return anywhere.sub(lambda found: table[found.group()], text)


def _absent(texts: Iterable[str], count: int) -> list[str]:
    """Return characters of the private use area that no text holds."""
    held = {character for text in texts for character in text}
    free: Iterator[str] = (character for character in map(chr, PRIVATE) if character not in held)
    return [next(free) for _ in range(count)]


class _Encoder:
    """A copy of a tokenizer in which characters stand for its control tokens, whose own texts are plain text there."""

    def __init__(self, tokenizer: Any, stand_ins: Sequence[tuple[str, str]]) -> None:
        self.name = str(tokenizer.name_or_path)
        known = {str(token): (int(number), token) for number, token in tokenizer.added_tokens_decoder.items()}
        controls = dict(stand_ins)
        self._backend = _without_marks(tokenizer, [name for name in controls if not known[name][1].special])
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        for name, character in stand_ins:
            settings = {flag: getattr(known[name][1], flag) for flag in flags}
            self._backend.add_tokens([_added(character, special=False, **settings)])
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        # a token that is left out moves the ids of those added after it, so each is looked up by its text
        names = {name: controls.get(name, name) for name in known}
        found = {number: self._backend.token_to_id(names[name]) for name, (number, _) in known.items()}
        self._originals = {int(here): number for number, here in found.items() if here is not None}
        own, unknown = self._backend.get_vocab_size(with_added_tokens=False), getattr(tokenizer, "unk_token", None)
        self._of_the_model = {known[name][0]: name for name in controls if known[name][0] < own and name != unknown}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text in which stand-ins are control tokens.

        Raises:
            CheckpointError: The tokenizer's model makes a control token of plain text.
        """
        return self._mapped(self._backend.encode(text, add_special_tokens=False).ids)

    def pair_ids(self, first: str, second: str) -> list[int]:
        """Return the ids of two texts, with the tokenizer's own control tokens around them.

        Raises:
            CheckpointError: The tokenizer's model makes a control token of plain text.
        """
        found = self._backend.encode(first, second)
        written = iter(
            self._mapped([token for token, own in zip(found.ids, found.special_tokens_mask, strict=True) if not own])
        )
        return [
            int(token) if own else next(written)
            for token, own in zip(found.ids, found.special_tokens_mask, strict=True)
        ]

    def _mapped(self, ids: Sequence[int]) -> list[int]:
        made = next((token for token in ids if token in self._of_the_model), None)
        if made is not None:
            raise CheckpointError(
                f"The tokenizer of {self.name!r} makes the control token {self._of_the_model[made]!r} of plain text.",
                hint="Take the conversations with it out, or set prompts.control_tokens to template.",
            )
        return [self._originals.get(token, token) for token in ids]


def _added(text: str, **settings: Any) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, **settings)


def _without_marks(tokenizer: Any, names: Sequence[str]) -> Any:
    """Return a copy of a fast tokenizer without some of its added tokens that are not special.

    Raises:
        CheckpointError: It is none of the `tokenizers` library.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"A message holds a control token of {tokenizer.name_or_path!r}, whose tokenizer cannot keep it as text.",
            hint="Add a tokenizer.json to the checkpoint, or set prompts.control_tokens to template.",
        )
    if not names:
        return copy.deepcopy(tokenizer.backend_tokenizer)
    document, left_out = json.loads(tokenizer.backend_tokenizer.to_str()), set(names)
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in left_out]
    return Tokenizer.from_str(json.dumps(document))


@lru_cache(maxsize=4)
def _encoder(tokenizer: Any, stand_ins: tuple[tuple[str, str], ...]) -> _Encoder:
    """Return the copy of a tokenizer for `(control token, character)`, made once: it takes seconds for a large vocabulary."""
    return _Encoder(tokenizer, stand_ins)
