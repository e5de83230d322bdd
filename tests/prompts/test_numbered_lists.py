"""The list that is shown and the list that comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.prompts.numbered_lists import parse, request_text, unwrapped


def test_the_request_shows_the_examples_and_asks_for_the_next_numbers() -> None:
    text = request_text(["Why is the\nsky blue?", "Name a river."], 12)
    assert "\n1. Why is the sky blue?\n2. Name a river.\n" in text
    assert "12 more entries, numbered 3 to 14" in text
    assert "$" not in text


def test_what_looks_like_a_template_in_an_example_stays_as_it_is() -> None:
    nasty = ["What is $first in ${asked}?", "{examples} <s> </s> <|assistant|> None %s", "Say $$ twice"]
    text = request_text(nasty, 2)
    assert all(f"{number}. {example}" in text for number, example in enumerate(nasty, 1))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("9. Why?\n10. How so?", ["Why?", "How so?"]),
        ("Sure! Here is more:\n\n9) Why?\n\n10) How so?\n\nI hope this helps.", ["Why?", "How so?"]),
        ("**9.** Why?\n**10. How so?**\n- 11: Where?", ["Why?", "How so?", "Where?"]),
        ("9. Sort these:\n- pear\n- apple\n10. Next", ["Sort these:\n- pear\n- apple", "Next"]),
        ("9.\n10. Something\n11.", ["Something"]),
        (
            '9. "Why?"\n10. Say "no" politely, or "yes".\n11. “Where?”',
            ["Why?", 'Say "no" politely, or "yes".', "Where?"],
        ),
        ("9. What did 1.5 million people do in 1990. Why?", ["What did 1.5 million people do in 1990. Why?"]),
        ("9. iPhone or HTML: what is OLDER?", ["iPhone or HTML: what is OLDER?"]),
        ("3.14 is a number", []),
        ("no list at all", []),
        ("", []),
    ],
)
def test_entries(text: str, items: list[str]) -> None:
    assert parse(text, cut=False).items == items


def test_the_last_entry_of_a_cut_list_is_discarded() -> None:
    assert parse("9. Why?\n10. How do", cut=True) == (["Why?"], 1)
    assert parse("9. How do", cut=True) == ([], 1)
    assert parse("How do", cut=True) == ([], 0)


@given(st.lists(st.from_regex(r"[A-Za-z][a-z ]{0,20}[a-z?]", fullmatch=True), max_size=9))
@settings(max_examples=60, deadline=None)
def test_a_list_comes_back_as_it_was_written(entries: list[str]) -> None:
    text = "\n".join(f"{number}. {entry}" for number, entry in enumerate(entries, 9))
    assert parse(text, cut=False).items == entries


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_anything_can_be_parsed_and_unwrapped(text: str) -> None:
    assert all(entry.strip() for entry in parse(text, cut=False).items)
    assert unwrapped(unwrapped(text)) == unwrapped(text)
