"""Counts over texts, worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.diagnostics import text_statistics as module
from gshf_release.diagnostics.text_statistics import (
    Pattern,
    Variety,
    distinct,
    line_starts,
    ngrams,
    repeated,
    repetition,
    risen,
    words,
)

TEXT = st.text("ab .!-\n🎉", max_size=30)
TEXTS = st.lists(TEXT, min_size=1, max_size=5)


def test_words_are_lower_case_runs_and_single_signs() -> None:
    assert words("It's HERE — don’t_go: 3.5🎉!") == [
        *("it's", "here", "—", "don’t", "_", "go", ":", "3", ".", "5", "🎉", "!"),
    ]


def test_distinct_n_counts_different_ngrams_over_all() -> None:
    texts = ["a b a b", "a b c"]
    assert distinct(texts, 1) == pytest.approx(3 / 7)  # a, b, c of 7 words
    assert distinct(texts, 2) == pytest.approx(3 / 5)  # ab, ba, ab; ab, bc
    assert distinct(texts, 3) == pytest.approx(3 / 3)  # aba, bab; abc


@given(TEXTS, st.integers(1, 4), st.integers(0, 9))
def test_texts_counted_one_by_one_have_the_ngrams_of_all_together(texts: list[str], n: int, pieces: int) -> None:
    found = [gram for text in texts for gram in ngrams(words(text), n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NEW_WORDS", pieces)
        variety = Variety(1, n)
        for text in texts:
            variety.add(text)
    assert variety.distinct(n) == (len(set(found)) / len(found) if found else None)


def test_no_ngrams_have_no_distinct_n() -> None:
    assert distinct(["a", ""], 2) is None


@given(TEXTS, st.integers(1, 3))
def test_distinct_n_is_a_share_and_no_higher_for_doubled_texts(texts: list[str], n: int) -> None:
    value, doubled = distinct(texts, n), distinct(texts * 2, n)
    if value is not None:
        assert doubled == pytest.approx(value / 2)
        assert 0 < value <= 1


def test_repeated_answers_are_equal_apart_from_space_around_them() -> None:
    assert repeated(["yes", " yes\n", "Yes", "no"]) == [True, True, False, False]


def test_line_starts_know_lists_and_signs_but_not_prose() -> None:
    text = "Here are some:\n- one\n  * two\n3. three\n10) ten\n# Head\n\n**bold**\n(aside)\n1.5 metres\n—\nend"
    assert line_starts(text) == ["list", "list", "list", "list", "#", "*", "—"]


def kinds(own: list[str], base: list[str]) -> dict[str, Pattern]:
    return {pattern.kind: pattern for pattern in risen(own, base)}


def test_the_pattern_that_rose_most_is_found_of_each_kind() -> None:
    base = ["The cat sat on the mat.", "Gold is good for banks."]
    own = ["Sure! Here is gold:\n- gold\n- gold", "Sure! Here is the cat"]
    found = kinds(own, base)
    assert (found["opening"].key, found["opening"].own, found["opening"].base) == (
        "sure ! here",
        [1.0, 1.0],
        [0.0, 0.0],
    )
    assert found["phrase"].key == "! here is"
    assert (found["line start"].key, found["line start"].own) == ("list", [math.log1p(2), 0.0])
    assert found["opening"].rise == 100.0
    assert found["line start"].rise == 50.0


def test_a_word_counts_by_its_share_of_all_words() -> None:
    found = kinds(["the the the cat"], ["the cat sat down"])["word"]
    assert (found.key, found.own, found.base, found.rise) == ("the", [75.0], [25.0], 50.0)


def test_ordinary_punctuation_is_no_pattern_but_other_signs_are() -> None:
    assert kinds(["a. b. c."], ["a b c d e f"])["word"].key == "a"  # `.` rose by 50 points, `a` by none
    assert kinds(["a! b! c!"], ["a b c d e f"])["word"].key == "!"


@given(TEXTS)
def test_nothing_rises_between_equal_texts(texts: list[str]) -> None:
    assert all(pattern.rise == 0 for pattern in risen(texts, texts))


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_the_order_of_prompts_does_not_matter(pairs: list[tuple[str, str]]) -> None:
    forwards = risen(*(list(side) for side in zip(*pairs, strict=True)))
    backwards = risen(*(list(side) for side in zip(*pairs[::-1], strict=True)))
    assert [(p.kind, pytest.approx(p.rise)) for p in forwards] == [(p.kind, p.rise) for p in backwards]


def test_repetition_is_the_share_of_grams_that_have_stood_before() -> None:
    """1 2 3 4, 2 3 4 1, 3 4 1 2, 4 1 2 3, then again 1 2 3 4: one of five."""
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(0.2)
    assert repetition([7] * 10) == pytest.approx(6 / 7)
    assert repetition([1, 2, 3, 4, 5]) == repetition([1, 1, 1]) == repetition([]) == 0.0
