"""Control tokens that somebody wrote into a message: they reach a model as the text they are, never as control tokens.

transformers renders a conversation to one string and cuts it at every special token, whoever wrote it. Here those of the
template are told from those of the messages before the string is cut, and the whole string is still tokenised at once: cut into
pieces, a tokenizer that begins a text with "▁" (SentencePiece's, as in Llama and Mistral) would do so at every piece.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from gshf_release.errors import CheckpointError
from gshf_release.records import Message

PRIVATE = range(0xF0000, 0xFFFFD)
"""Code points that Unicode leaves to private use; they stand for control tokens while a conversation is rendered."""


def template_ids(tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool, **variables: str) -> list[int]:
    """Return the ids that transformers' `apply_chat_template` gives: control tokens in messages are control tokens.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns.
        answer_follows: End where the assistant begins to speak.
        variables: What the template finds under a name instead of the tokenizer's own value, for example `bos_token=""`.
    """
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=answer_follows, tokenize=True, return_dict=False, **variables
    )
    return [int(token) for token in ids]


def text_ids(tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool, **variables: str) -> list[int]:
    """Return the same ids, but with the control tokens inside messages as text.

    A conversation without any gets exactly the ids of `template_ids`.

    Raises:
        CheckpointError: A message holds a control token, and the tokenizer is none of the `tokenizers` library.
    """
    specials = special_tokens(tokenizer)
    texts = [turn["content"] for turn in messages]
    written = [token for token in specials if any(token in text for text in texts)]
    if not written:
        return template_ids(tokenizer, messages, answer_follows=answer_follows, **variables)
    marks = _absent(texts, len(specials) + len(written))
    stand_ins = dict(zip(specials, marks, strict=False))
    hidden = dict(zip(written, marks[len(specials) :], strict=True))
    turns = [Message(role=turn["role"], content=_replaced(turn["content"], hidden)) for turn in messages]
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=answer_follows, tokenize=False, **variables)
    marked = _replaced(_replaced(rendered, stand_ins), {mark: token for token, mark in hidden.items()})
    encoder, originals = _encoder(tokenizer, tuple(stand_ins.items()))
    ids = encoder.encode(marked, add_special_tokens=False).ids
    return [originals.get(token, token) for token in ids]


def pair_ids(tokenizer: Any, first: str, second: str) -> list[int]:
    """Return the ids of two texts as an encoder such as BERT reads them, with control tokens in them as text."""
    found = any(token in text for token in special_tokens(tokenizer) for text in (first, second))
    as_text = {"split_special_tokens": True} if found else {}
    return [int(token) for token in tokenizer(first, second, **as_text)["input_ids"]]


def special_tokens(tokenizer: Any) -> list[str]:
    """Return the texts of a tokenizer's special tokens."""
    known = getattr(tokenizer, "added_tokens_decoder", {})
    return [str(token) for token in known.values() if token.special]


def _replaced(text: str, table: dict[str, str]) -> str:
    """Return the text with every key replaced by its value; of keys that overlap the longest counts, as in tokenizers."""
    anywhere = re.compile("|".join(sorted(map(re.escape, table), key=len, reverse=True)))
    return anywhere.sub(lambda found: table[found.group()], text)


def _absent(texts: Iterable[str], count: int) -> list[str]:
    """Return characters of the private use area that no text holds."""
    held = {character for text in texts for character in text}
    free: Iterator[str] = (character for character in map(chr, PRIVATE) if character not in held)
    return [next(free) for _ in range(count)]


@lru_cache(maxsize=4)
def _encoder(tokenizer: Any, stand_ins: tuple[tuple[str, str], ...]) -> tuple[Any, dict[int, int]]:
    """Return a copy of a tokenizer in which characters stand for its special tokens, whose own texts are plain text there.

    Args:
        tokenizer: The tokenizer.
        stand_ins: `(special token, character)`.

    Returns:
        The copy, and `{id of a character in it: id of its special token}`.
    """
    from tokenizers import AddedToken

    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"A message holds a control token of {tokenizer.name_or_path!r}, whose tokenizer cannot keep it as text.",
            hint="Add a tokenizer.json to the checkpoint, or set prompts.control_tokens to template.",
        )
    clone = copy.deepcopy(tokenizer.backend_tokenizer)
    known = {str(token): (number, token) for number, token in tokenizer.added_tokens_decoder.items()}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    for special, character in stand_ins:
        settings = {name: getattr(known[special][1], name) for name in flags}
        clone.add_tokens([AddedToken(character, special=False, **settings)])
    clone.encode_special_tokens = True
    clone.no_truncation()
    clone.no_padding()
    return clone, {int(clone.token_to_id(character)): int(known[special][0]) for special, character in stand_ins}
