"""Each kind of damage on a hand-made answer; partners of the same side of the split and nearest in length."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.records import FinishReason, Prompt, Sample
from gshf_release.rewards.contrasts import DAMAGES, Answer, build, cut, dropped, repeated, shuffled

TEXT = "Tea cools slowly in the cup. The cat sat on a mat. Gold is good for banks."
WORDS = TEXT.split(" ")


def answer(text: str, prompt: str = "why?", index: int = 0, reason: FinishReason = "stop") -> Answer:
    asked = Prompt.of([{"role": "user", "content": prompt}])
    return Answer(asked, Sample(asked.prompt_id, index, "T=0.7", 0.7, [1], [2], text, reason, "f" * 64))


def sample(text: str = TEXT, reason: FinishReason = "stop") -> Sample:
    return answer(text, reason=reason).sample


class Fixed:
    """A draw that always gives the same."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def random(self) -> Any:
        return self.value

    def uniform(self, low: float, high: float) -> Any:
        assert low <= self.value <= high
        return self.value

    def randrange(self, stop: int) -> Any:
        assert self.value < stop
        return self.value


def test_dropped_leaves_out_about_a_fifth() -> None:
    long = " ".join(f"w{number}" for number in range(2000))
    kept = str(dropped(sample(long), random.Random(0))).split(" ")
    assert 0.75 < len(kept) / 2000 < 0.85
    assert kept == sorted(kept, key=lambda word: int(word[1:])), "the order stays"


def test_dropped_by_hand() -> None:
    draws = iter([0.1, 0.9, 0.9, 0.2, 0.21, 0.9])

    class Listed(random.Random):
        def random(self) -> float:
            return next(draws)

    assert dropped(sample("a b c d e f"), Listed()) == "b c e f"


def test_shuffled_keeps_the_words_of_each_window() -> None:
    found = str(shuffled(sample(), random.Random(3))).split(" ")
    assert found != WORDS
    for start in range(0, len(WORDS), 6):
        assert sorted(found[start : start + 6]) == sorted(WORDS[start : start + 6])


def test_cut_breaks_off_in_mid_sentence() -> None:
    assert cut(sample(), Fixed(0.5)) == "Tea cools slowly in the cup. The cat"  # 16 or 17 words, half of them
    assert cut(sample(), Fixed(0.9)) == " ".join(WORDS[: int(len(WORDS) * 0.9)])


def test_cut_leaves_no_closing_mark() -> None:
    assert cut(sample("One two three four. Five six seven eight."), Fixed(0.5)) == "One two three four"


def test_an_answer_that_was_cut_cannot_be_cut() -> None:
    assert cut(sample(reason="length"), Fixed(0.5)) is None


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (0, "Tea cools now. Tea cools now. Tea cools now."),
        (1, "Tea cools now. The cat sat. The cat sat."),
    ],
)
def test_repeated_says_a_sentence_again_until_the_length_is_reached(which: int, expected: str) -> None:
    assert repeated(sample("Tea cools now. The cat sat. Gold is up."), Fixed(which)) == expected


def test_repeated_needs_a_sentence() -> None:
    assert repeated(sample("Yes. No."), Fixed(0)) is None


@pytest.mark.parametrize("kind", ["dropped", "shuffled", "cut"])
def test_a_short_answer_is_not_damaged(kind: str) -> None:
    assert DAMAGES[kind](sample("only five words are here"), random.Random(0)) is None


POOL = [answer("x" * length + " end", f"prompt {number}") for number, length in enumerate(range(10, 130, 3))]


def test_the_other_answer_is_nearest_in_length_on_the_same_side() -> None:
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
        nearest = min(abs(len(text) - len(contrast.better)) for text in others)
        assert abs(len(contrast.worse) - len(contrast.better)) == nearest


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
    for contrast in build(answers, ["other_prompt", *DAMAGES], seed=seed, held_out=0.25):
        assert contrast.better != contrast.worse


def test_a_prompt_is_on_one_side_for_every_answer_and_kind() -> None:
    answers = [answer(TEXT, f"prompt {number}", index) for number in range(10) for index in range(2)]
    sides: dict[str, set[bool]] = {}
    for contrast in build(answers, list(DAMAGES), seed=0, held_out=0.5):
        sides.setdefault(contrast.prompt_id, set()).add(contrast.held_out)
    assert all(len(found) == 1 for found in sides.values())


def test_contrasts_do_not_depend_on_the_order_of_answers() -> None:
    forwards = build(POOL, list(DAMAGES), seed=0, held_out=0.3)
    backwards = build(POOL[::-1], list(DAMAGES), seed=0, held_out=0.3)
    assert sorted(map(repr, forwards)) == sorted(map(repr, backwards))
