"""A judge's thinking is set aside, however its family marks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.evaluation.verdicts.thinking import set_aside


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("<think>Maybe [[3]].</think>\nRating: [[9]]", "Rating: [[9]]", "Maybe [[3]]."),
        ("<THINKING>\na\n</THINKING>b", "b", "a"),
        ('<thinking mode="deep">a</thinking>b', "b", "a"),
        ("<reasoning>a</reasoning> b", "b", "a"),
        ("<thought>a</thought>b", "b", "a"),
        ("&lt;think&gt;a&lt;/think&gt;b", "b", "a"),
        ("[THINK]a[/THINK]b", "b", "a"),
        ("◁think▷a◁/think▷b", "b", "a"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "b", "a"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "b", "a"),
        ("<unused94>thought\na<unused95>b", "b", "thought\na"),
        ("<seed:think>a</seed:think>b", "b", "a"),
        ("Here is my thought process:\na\n\nHere is my response:\nb", "b", "a"),
        ("<think>a</thinking>b", "b", "a"),  # models mix up their marks
        ("<think>a</think>b<think>c</think>d", "bd", "a\nc"),
        ("<think>\n\n</think>\n\nb", "b", ""),
    ],
)
def test_marked_thinking_is_set_aside(text: str, answer: str, thinking: str) -> None:
    found = set_aside(text)
    assert (found.text, found.thinking) == (answer, thinking)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Maybe [[3]].</think>Rating: [[9]]", "Rating: [[9]]"),  # the opening mark stood in the prompt
        ("<think>a<think>b</think>c [[3]]</think>[[9]]", "[[9]]"),
        ("<think>Maybe [[3]]", ""),
        ("Sure. <think>Maybe [[3]]", "Sure."),
        ("a [[3]]</think>", ""),
        ("<think>", ""),
    ],
)
def test_a_mark_without_its_counterpart(text: str, answer: str) -> None:
    assert set_aside(text).text == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "<|channel|>analysis<|message|>[[2]]<|end|><|start|>assistant<|channel|>final<|message|>[[8]]<|return|>",
            "[[8]]",
        ),
        ("<|start|>assistant<|channel|>final<|message|>[[8]]", "[[8]]"),
        ("<|channel|>final <|constrain|>text<|message|>[[8]]<|end|>", "[[8]]"),
        ("<|channel|>analysis<|message|>[[2]], no", ""),
        ("analysisThe user wants [[2]].assistantfinalRating: [[8]]", "Rating: [[8]]"),
        ("analysisThe user wants [[2]]", ""),
        ("analysis of the answer: fine. [[8]]", "analysis of the answer: fine. [[8]]"),
        ("Analysis: fine. [[8]]", "Analysis: fine. [[8]]"),
    ],
)
def test_channels_of_harmony(text: str, answer: str) -> None:
    assert set_aside(text).text == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer leaks its `<think>` tag. [[4]]",
        'It writes "</think>" at the end. [[4]]',
        "I think it is good. [[4]]",
        "if a <b> then [[4]]",
        "An <analysis> tag. [[4]]",
        " \n[[4]]  ",
        "",
    ],
)
def test_a_text_without_thinking_stays_as_it_is(text: str) -> None:
    found = set_aside(text)
    assert (found.text, found.thinking) == (text, "")


def test_where_the_answer_begins() -> None:
    assert set_aside("<think>a</think>\n\n m").start == 19
    assert set_aside("  m").start == 2
    assert set_aside("<think>a").start is None
    assert set_aside("").start is None


@given(st.text(alphabet="ab <>/[]|`\n", max_size=30), st.text(alphabet="cd <>/[]|`\n", max_size=30))
def test_what_stands_behind_the_last_closing_mark_is_the_answer(thinking: str, answer: str) -> None:
    assert set_aside(f"<think>{thinking}</think>x{answer}").text == f"x{answer}".strip()
