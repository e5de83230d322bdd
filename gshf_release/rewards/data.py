"""Rows of preference data and of conversations, in the forms that the field's data sets use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gshf_release.records import Message, parse_turn

PREFERENCE_EXAMPLE = '{"prompt": "Why is the sky blue?", "chosen": "Air scatters blue light.", "rejected": "No."}'
CONVERSATION_EXAMPLE = '{"prompt": "Why is the sky blue?", "response": "Air scatters blue light."}'
RESPONSES = ("response", "completion", "output")


class Preference(NamedTuple):
    """A conversation that waits for an answer, with a better and a worse one."""

    messages: list[Message]
    chosen: str
    rejected: str


def parse_preference(row: dict[str, Any]) -> Preference:
    """Return the preference of a row.

    `chosen` and `rejected` are texts beside `prompt` (text or turns) or `messages` (turns); or they are turns: whole
    conversations that differ in their last turn, or only what follows `prompt`.

    Raises:
        ValueError: The row has another form, a side is empty, the sides are equal or answer different conversations.
    """
    sides = [_conversation(row, row.get(name), name) for name in ("chosen", "rejected")]
    if sides[0][:-1] != sides[1][:-1]:
        raise ValueError("chosen and rejected answer different conversations")
    chosen, rejected = (side[-1]["content"] for side in sides)
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are the same text")
    return Preference(sides[0][:-1], chosen, rejected)


def parse_conversation(row: dict[str, Any]) -> list[Message]:
    """Return the conversation of a row, whose last turn is what will be scored.

    It is `messages` (turns), or `prompt` (text or turns) or `instruction` (text) beside `response`, `completion` or `output`.

    Raises:
        ValueError: The row has another form, or the last turn is not a non-empty one of the assistant.
    """
    name = next((name for name in RESPONSES if row.get(name) is not None), None)
    if name is None:
        if "messages" not in row:
            raise ValueError(
                f"expected an answer under {' or '.join(map(repr, RESPONSES))}, or 'messages' that end with it"
            )
        return _answered(_turns(row.get("messages"), "messages"), "messages")
    return _conversation(row, row[name], name)


def _conversation(row: dict[str, Any], answer: Any, name: str) -> list[Message]:
    """Return the whole conversation that ends with `answer`: a text, or turns with or without what came before."""
    if isinstance(answer, str):
        return _answered([*_prompt(row), Message(role="assistant", content=answer)], name)
    turns = _turns(answer, name)
    return _answered(turns if turns[0]["role"] != "assistant" else [*_prompt(row), *turns], name)


def _prompt(row: dict[str, Any]) -> list[Message]:
    """Return the turns before the answer."""
    if isinstance(row.get("messages"), list):
        return _turns(row["messages"], "messages")
    for name in ("prompt", "instruction"):
        value = row.get(name)
        if isinstance(value, str):
            if not value.strip():
                raise ValueError(f"{name!r} is empty")
            return [Message(role="user", content=value)]
        if value is not None:
            return _turns(value, name)
    raise ValueError('expected "prompt" (text or turns) or "messages" (turns) beside the answer')


def _turns(value: Any, name: str) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"expected a text or turns under {name!r}")
    return [parse_turn(turn) for turn in value]


def _answered(turns: list[Message], name: str) -> list[Message]:
    if turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        raise ValueError(f"the last turn under {name!r} must be the assistant's, and not empty")
    if len(turns) < 2 or turns[-2]["role"] == "assistant":
        raise ValueError(f"{name!r} answers no one: the turn before the last must be the user's")
    return turns
