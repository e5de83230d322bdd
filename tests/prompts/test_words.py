"""Words: those of rouge_score in ASCII, a stated rule in every other script."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import tokenize

from gshf_release.prompts.words import normalised, word_count, words


@given(st.text(alphabet=string.printable, max_size=60))
@settings(max_examples=200, deadline=None)
def test_ascii_words_are_those_of_rouge_score(text: str) -> None:
    assert words(text) == tokenize.tokenize(text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Почему небо голубое?", ["почему", "небо", "голубое"]),
        ("Éducation à Montréal", ["éducation", "à", "montréal"]),
        ("caf\u0065\u0301 na\u00efve", ["café", "naïve"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("لماذا السماء زرقاء؟", ["لماذا", "السماء", "زرقاء"]),
        ("日本の首都は?", ["日", "本", "の", "首", "都", "は"]),
        ("写Python程序", ["写", "python", "程", "序"]),
        ("น้ำ", ["น้", "ำ"]),
        ("하늘은 왜 파란가", ["하늘은", "왜", "파란가"]),
        ("ＦＵＬＬ １２ snake_case", ["full", "12", "snake", "case"]),
        ("😀 🎉 — …", []),
        ("straße STRASSE", ["strasse", "strasse"]),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    # NFKC writes the Thai sara am as two characters: nikhahit, a mark, and sara aa, a letter.
    expected = ["น้ํ", "า"] if text == "น้ำ" else expected
    assert words(text) == expected


def test_a_reader_counts_letters_where_there_are_no_spaces() -> None:
    assert word_count("Why is it so?") == 4
    assert word_count("日本の首都はどこですか？") == 11
    assert word_count("Почему небо - голубое?") == 4


def test_texts_that_differ_in_case_and_punctuation_are_the_same() -> None:
    assert normalised("What's  UP, doc?") == normalised("what s up doc") == "what s up doc"
    assert normalised("😀 😀") == "😀 😀"
    assert normalised("😀") != normalised("🎉")
