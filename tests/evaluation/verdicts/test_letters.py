"""Letters weighed by the probabilities of an answer's first token, and named by its text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.evaluation.verdicts.letters import NamedLetter, named, probability, weigh


def token(text: str, logprob: object, *alternatives: tuple[str, object]) -> dict[str, Any]:
    listed = [{"token": name, "logprob": value} for name, value in alternatives]
    return {"token": text, "logprob": logprob, "top_logprobs": listed}


def held(*tokens: dict[str, Any], text: str = "") -> tuple[float, float] | None:
    """Return the letters' share and the second's part, rounded."""
    found = weigh(list(tokens), "m", "M", text)
    return None if found is None else (round(found.share, 6), round(found.second, 6))


def log(share: float) -> float:
    return math.log(share)


def test_spellings_of_a_letter_count_together() -> None:
    listed = [
        (" m", log(0.4)),
        ("m", log(0.1)),
        ("Ġm", log(0.05)),
        ("▁m", log(0.05)),
        ("M", log(0.2)),
        ('"M', log(0.1)),
    ]
    assert held(token(" m", log(0.4), *listed)) == (0.9, pytest.approx(0.3 / 0.9, abs=1e-6))


def test_a_blank_before_the_letter_by_hand() -> None:
    # m: e^-0.05 + e^-9 = 0.951353, M: e^-4 = 0.018316
    assert held(token(" m", -0.05, (" m", -0.05), ("M", -4.0), ("m", -9.0))) == (0.969668, 0.018889)


@pytest.mark.parametrize(
    "spelling", ["m", " m", "\nm", "\n\nm", "Ġm", "▁m", "Ċm", '"m', "'m", "**m", "(m", "m)", "m.", "<0x6D>"]
)
def test_each_spelling_is_the_letter(spelling: str) -> None:
    assert held(token(spelling, log(0.9), (spelling, log(0.9)), ("M", log(0.1)))) == (1.0, 0.1)


@pytest.mark.parametrize("spelling", ["Mm", "mm", "model", "ｍm", "the", "1"])
def test_other_tokens_are_no_letter(spelling: str) -> None:
    assert held(token(spelling, log(0.9), (spelling, log(0.9)), ("M", log(0.1)))) == (0.1, 1.0)


def test_a_token_without_text_is_read_from_its_bytes() -> None:
    entry = {"token": "token_id:76", "bytes": [32, 109], "logprob": log(0.9), "top_logprobs": []}
    assert held(entry) == (0.9, 0.0)
    assert held({"token": None, "bytes": [77], "logprob": log(0.9)}) == (0.9, 1.0)
    assert held({"token": None, "bytes": [226, 128, 156, 77], "logprob": log(0.9)}) == (0.9, 1.0), "“M"


def test_the_first_token_of_the_answer_counts_not_of_the_thinking() -> None:
    thought = [token("<think>", -0.001, ("<think>", -0.001), ("M", -14.0)), token("M", -0.1), token("</think>", 0.0)]
    answer = token("m", log(0.8), ("m", log(0.8)), ("M", log(0.2)))
    assert held(*thought, token("\n\n", 0.0), answer) == (1.0, 0.2)
    assert held(*thought[:2]) is None  # there is no answer
    bare = [token("Okay", -0.1, ("Okay", -0.1), ("M", -5.0)), token(",", 0.0), token(" hm.", 0.0)]
    assert held(*bare, answer, text="m") == (1.0, 0.2)  # the server has set the thinking aside, not its tokens


def test_blank_and_empty_tokens_and_quotes_are_passed_over() -> None:
    answer = token("M", log(0.6), ("M", log(0.6)), ("m", log(0.3)))
    for before in ("", "\n", " ", '"', "**"):
        assert held(token(before, -0.1, (before, -0.1), ("m", -3.0)), answer) == (0.9, pytest.approx(2 / 3, abs=1e-6))


def test_the_beginning_of_a_longer_word_is_no_letter() -> None:
    assert held(token("M", log(0.9), ("M", log(0.9)), ("m", log(0.1))), token("odel", 0.0)) == (0.0, 0.0)


def test_the_token_itself_may_be_missing_among_the_alternatives() -> None:
    assert held(token("m", log(0.3), ("M", log(0.6)))) == (0.9, pytest.approx(2 / 3, abs=1e-6))


def test_crumbs_have_a_small_share() -> None:
    found = weigh([token("The", -0.001, ("The", -0.001), ("M", -14.0), ("m", -16.5))], "m", "M")
    assert found is not None
    assert found.share < 1e-5


@pytest.mark.parametrize("value", [None, "−0.1", "x", math.nan, math.inf, 0.5, 1e308, 10**400, True, [], {}])
def test_what_is_no_log_probability(value: object) -> None:
    assert probability(value) is None
    assert held(token("m", value, ("m", value), ("M", -1.0))) is None  # the judge's own letter is not known


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 1.0), (1e-6, 1.0), (-math.inf, 0.0), (-9999.0, 0.0), (-(10**400), 0.0), (0, 1.0)]
)
def test_what_is_one(value: float, expected: float) -> None:
    assert probability(value) == expected


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        [None],
        ["m"],
        [{}],
        [{"token": "m"}],
        "m",
        7,
        {"content": []},
        [{"token": "m", "logprob": -1, "top_logprobs": 3}][:0],
    ],
)
def test_damaged_log_probabilities_are_none(logprobs: object) -> None:
    assert weigh(logprobs, "m", "M") is None


def test_shares_that_add_up_to_more_than_one_are_no_probabilities() -> None:
    assert held(token("m", 0.0, ("m", 0.0), ("M", 0.0))) is None
    sloppy = token(" m", -0.05, (" m", -0.05), (" M", -3.0), ("m", -9.0), ("M", -4.0))  # they add up to 1.02
    assert held(sloppy) == (1.0, pytest.approx(0.066803, abs=2e-6))


def test_the_older_form_of_alternatives() -> None:
    entry = {"token": "m", "logprob": log(0.9), "top_logprobs": {"m": log(0.9), "M": log(0.1)}}
    assert held(entry) == (1.0, 0.1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["m", " m", "M", "ĠM", "The", "\n"]), st.floats(-20, 0)),
        max_size=6,
        unique_by=lambda x: x[0],
    )
)
def test_shares_lie_between_0_and_1(alternatives: list[tuple[str, float]]) -> None:
    found = weigh([token("m", -1.0, *alternatives)], "m", "M")
    assert found is None or (0 <= found.share <= 1 and 0 <= found.second <= 1)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("m", "m"),
        (" M.", "M"),
        ('"m"\n', "m"),
        ("m)", "m"),
        ("**M**", "M"),
        ("Model M", "M"),
        ("Answer: m", "m"),
        ("The best model is M.", "M"),
        ("<answer>m</answer>", "m"),
        ("M because it is longer", "M"),
        ("M. The answer of m is short.", "M"),
        ("M\n\nThe answer of m is short.", "M"),
        ("M is better", "M"),
        ("M is worse than m", None),
        ("M is worse", None),
        ("m/M", None),
        ("m, M", None),
        ("both", None),
        ("I'm sorry, I cannot compare them.", None),
        ("I cannot", None),
        ("", None),
        ("n", None),
    ],
)
def test_the_letter_that_a_text_names(text: str, letter: str | None) -> None:
    found = named(text, "m", "M")
    assert (found.letter if found else None) == letter


def test_of_several_lines_with_a_letter_the_last_counts() -> None:
    assert named("m\n\nOn reflection:\n\nM", "m", "M") == NamedLetter("M", several=True)
    assert named("m\nm", "m", "M") == NamedLetter("m")


def test_a_text_that_was_cut_may_have_been_going_on() -> None:
    assert named("Model m", "m", "M", cut=True) is None
    assert named("m", "m", "M", cut=True) == NamedLetter("m")
    assert named("m because it", "m", "M", cut=True) == NamedLetter("m")
