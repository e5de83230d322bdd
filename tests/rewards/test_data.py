"""The forms in which preference data and answers come."""

from __future__ import annotations

from typing import Any

import pytest

from gshf_release.records import Message
from gshf_release.rewards.data import Preference, parse_conversation, parse_preference

USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "why"), ("assistant", "a"), ("assistant", "b"))
)
SYSTEM = {"role": "system", "content": "be brief"}
ASKED = [Message(role="user", content="why")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "why", "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {
            "prompt": "why",
            "messages": [USER, GOOD],
            "chosen": [USER, GOOD],
            "rejected": [USER, BAD],
            "score_chosen": 8.0,
        },
        {"messages": [USER], "chosen": "a", "rejected": "b"},
        {"messages": [USER], "chosen": [GOOD | {"id": 7}], "rejected": [BAD]},
    ],
)
def test_every_form_of_a_preference(row: dict[str, Any]) -> None:
    assert parse_preference(row) == Preference(ASKED, "a", "b")


def test_earlier_turns_are_kept() -> None:
    before = [SYSTEM, USER, GOOD, USER]
    assert parse_preference({"chosen": [*before, GOOD], "rejected": [*before, BAD]}).messages == before


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "a", "rejected": "b"}, 'expected "prompt"'),
        ({"prompt": "why", "chosen": "a"}, "expected a text or turns under 'rejected'"),
        ({"prompt": "why", "chosen": "a", "rejected": " a\n"}, "are the same text"),
        ({"prompt": "why", "chosen": "a", "rejected": " "}, "under 'rejected' must be the assistant's, and not empty"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "'prompt' is empty"),
        ({"prompt": "why", "chosen": [], "rejected": "b"}, "expected a text or turns under 'chosen'"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "answer different conversations"),
        (
            {"chosen": [USER, GOOD, USER], "rejected": [USER, BAD]},
            "the last turn under 'chosen' must be the assistant's",
        ),
        ({"chosen": [USER, GOOD, GOOD], "rejected": [USER, GOOD, BAD]}, "'chosen' answers no one"),
        ({"prompt": "why", "chosen": [{"role": "judge", "content": "a"}], "rejected": "b"}, "unknown role 'judge'"),
        ({"prompt": "why", "chosen": [{"role": "assistant"}], "rejected": "b"}, "every turn needs"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "expected a text or turns under 'prompt'"),
    ],
)
def test_a_preference_that_is_none(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_preference(row)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, GOOD]},
        {"prompt": "why", "response": "a"},
        {"prompt": [USER], "completion": "a"},
        {"prompt": [USER], "completion": [GOOD]},
        {"instruction": "why", "output": "a", "generator": "somebody"},
        {"messages": [USER], "response": "a"},
    ],
)
def test_every_form_of_an_answer(row: dict[str, Any]) -> None:
    assert parse_conversation(row) == [*ASKED, Message(role="assistant", content="a")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER]}, "the last turn under 'messages' must be the assistant's"),
        ({"messages": [GOOD]}, "'messages' answers no one"),
        ({"prompt": "why"}, "expected an answer under 'response' or 'completion' or 'output'"),
        ({"response": "a"}, 'expected "prompt"'),
    ],
)
def test_an_answer_that_is_none(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_conversation(row)
