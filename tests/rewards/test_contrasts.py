"""Each kind of damage on a hand-made answer; partners of the same side of the split and nearest in length."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.data.records import FinishReason, Prompt, Sample
from gshf_release.rewards.contrasts import KINDS, Answer, build, cut, missing_words, repeated, shuffled

TEXT = "Tea cools slowly in the cup. The cat sat on a mat. Gold is good for banks."
WORDS = TEXT.split(" ")


def answer(text: str, prompt: str = "why?", index: int = 0, reason: FinishReason = "stop") -> Answer:
    asked = Prompt.of([{"role": "user", "content": prompt}])
    return Answer(asked, Sample(asked.prompt_id, index, "T=0.7", 0.7, [1], [2], text, reason, "f" * 64))


def word_count(text: str) -> int:
    return len(text.split(" "))


@pytest.mark.parametrize("kind", ["missing_words", "shuffled", "repeated", "cut"])
def test_both_sides_have_the_same_number_of_words(kind: str) -> None:
    reason: FinishReason = "length" if kind == "missing_words" else "stop"
    own = answer(TEXT, reason=reason)
    side = [own, answer(f"{TEXT} {TEXT}", index=1, reason="length")]
    made = KINDS[kind](own, side, random.Random(1))
    assert made is not None
    assert word_count(made[0]) == word_count(made[1])
    assert made[0] != made[1]


def test_dropped_by_hand() -> None:
    draws = iter([0.1, 0.9, 0.9, 0.2, 0.21, 0.9, 0.9, 0.9])

    class Listed(random.Random):
        def random(self) -> float:
            return next(draws)

    own = answer("a b c d e f g h", reason="length")
    assert missing_words(own, [own], Listed()) == ("a b c d e f", "b c e f g h")


def test_dropped_leaves_out_about_a_fifth() -> None:
    own = answer(" ".join(f"w{number}" for number in range(2000)), reason="length")
    made = missing_words(own, [own], random.Random(0))
    assert made is not None
    kept = made[1].split(" ")
    assert 0.75 < len(kept) / 2000 < 0.85
    assert kept == sorted(kept, key=lambda word: int(word[1:])), "the order stays"


def test_a_complete_answer_is_not_dropped_from() -> None:
    own = answer(TEXT)
    assert missing_words(own, [own], random.Random(0)) is None


def test_shuffled_keeps_the_words_of_each_window() -> None:
    own = answer(TEXT)
    made = shuffled(own, [own], random.Random(3))
    assert made is not None
    found = made[1].split(" ")
    assert found != WORDS
    for start in range(0, len(WORDS), 6):
        assert sorted(found[start : start + 6]) == sorted(WORDS[start : start + 6])


def test_cut_breaks_a_longer_answer_to_the_same_prompt_off_at_the_same_length() -> None:
    own = answer("Tea cools in the cup.")
    longer = answer("Because the cat. Sat on a mat for a long time", index=1, reason="length")
    stranger = answer("Other words that are longer than the answer is", prompt="who?")
    made = cut(own, [own, longer, stranger], random.Random(0))
    assert made == ("Tea cools in the cup.", "Because the cat. Sat on")


def test_cut_leaves_no_closing_mark() -> None:
    own = answer("Tea cools in the cup.")
    longer = answer("Because the cat sat on. And then it went home again", index=1)
    made = cut(own, [own, longer], random.Random(0))
    assert made is not None
    assert made[1] == "Because the cat sat on"


def test_an_answer_that_was_cut_is_no_complete_side() -> None:
    own = answer(TEXT, reason="length")
    assert cut(own, [own, answer(f"{TEXT} {TEXT}", index=1)], random.Random(0)) is None


def test_repeated_says_a_few_words_again_up_to_the_same_length() -> None:
    own = answer("a b c d e f g h i j k l")

    class Fixed(random.Random):
        def randint(self, low: int, high: int) -> int:
            return low if low else 2  # three words, from the third on

    made = repeated(own, [own], Fixed())
    assert made is not None
    assert made[1] == "a b c d e c d e c d e c"


@pytest.mark.parametrize("kind", ["missing_words", "shuffled", "repeated"])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_short_answer_is_not_damaged(kind: str, reason: FinishReason) -> None:
    own = answer("only five words are here", reason=reason)
    assert KINDS[kind](own, [own], random.Random(0)) is None


POOL = [answer("x" * length + " end", f"prompt {number}") for number, length in enumerate(range(10, 130, 3))]


def test_the_other_answer_is_one_of_the_three_nearest_in_length_on_the_same_side() -> None:
    contrasts = build(POOL, ["other_prompt"], seed=0, held_out=0.3)
    side = {contrast.prompt_id: contrast.held_out for contrast in contrasts}
    owner = {entry.sample.text: entry.prompt.prompt_id for entry in POOL}
    assert len(contrasts) == len(POOL)
    assert 0 < sum(side.values()) < len(POOL)
    for contrast in contrasts:
        partner = owner[contrast.worse]
        assert partner != contrast.prompt_id
        assert side[partner] == contrast.held_out
        others = [text for text, who in owner.items() if side[who] == contrast.held_out and who != contrast.prompt_id]
        third = sorted(abs(len(text) - len(contrast.better)) for text in others)[2]
        assert abs(len(contrast.worse) - len(contrast.better)) <= third


def test_the_other_answer_ended_in_the_same_way() -> None:
    pool = [answer("x" * 20, "a"), answer("y" * 21, "b", reason="length"), answer("z" * 60, "c")]
    found = build(pool, ["other_prompt"], seed=0, held_out=1e-9)
    assert [(contrast.better[0], contrast.worse[0]) for contrast in found] == [("x", "z"), ("z", "x")]


def test_an_answer_to_the_same_prompt_is_no_other_prompt() -> None:
    assert build([answer("x" * 9, "a"), answer("y" * 9, "a", 1)], ["other_prompt"], seed=0, held_out=0.5) == []


@given(st.lists(st.text("ab .", max_size=60), min_size=1, max_size=8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_two_sides_always_differ(texts: list[str], seed: int) -> None:
    answers = [answer(text, f"prompt {number}") for number, text in enumerate(texts)]
    for contrast in build(answers, list(KINDS), seed=seed, held_out=0.25):
        assert contrast.better != contrast.worse


def test_a_prompt_is_on_one_side_for_every_answer_and_kind() -> None:
    answers = [answer(TEXT, f"prompt {number}", index) for number in range(10) for index in range(2)]
    sides: dict[str, set[bool]] = {}
    for contrast in build(answers, list(KINDS), seed=0, held_out=0.5):
        sides.setdefault(contrast.prompt_id, set()).add(contrast.held_out)
    assert all(len(found) == 1 for found in sides.values())


def test_contrasts_do_not_depend_on_the_order_of_answers() -> None:
    forwards = build(POOL, list(KINDS), seed=0, held_out=0.3)
    backwards = build(POOL[::-1], list(KINDS), seed=0, held_out=0.3)
    assert sorted(map(repr, forwards)) == sorted(map(repr, backwards))
