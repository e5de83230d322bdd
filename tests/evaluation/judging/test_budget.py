"""The limit of a session's cost: what is expected, what is set aside and what a server counts, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.evaluation.judging import judges
from gshf_release.evaluation.judging.budget import Budget
from gshf_release.serving.openai_replies import ChatAnswer

PROMPT = [Message(role="user", content="x" * 40)]
"""About 40 / 4 + 8 = 18 tokens, 40 + 16 = 56 at the most."""


def budget(max_cost: float | None) -> Budget:
    """Return a budget at 10 and 30 US dollars per million tokens, for judgments of at most 100 tokens and about 50."""
    overrides = ("price.input=10", "price.output=30", "parameters.max_tokens=100", "expected_tokens=50")
    return Budget(judges.load("openai-compatible-mt-bench-single", overrides), max_cost)


def test_an_estimate_above_the_limit_is_refused_and_one_at_it_is_not() -> None:
    limited = budget(0.05)
    limited.check_estimate(0.05)
    with pytest.raises(EngineError, match=r"\$0\.0510 after the \$0\.0000 already spent; --max-cost is \$0\.0500"):
        limited.check_estimate(0.051)


def test_an_estimate_counts_on_top_of_what_was_spent() -> None:
    limited = budget(0.05)
    limited.spend(0.03)
    limited.check_estimate(0.02)
    with pytest.raises(EngineError, match=r"\$0\.0210 after the \$0\.0300 already spent"):
        limited.check_estimate(0.021)


def test_the_estimate_and_the_worst_case_of_a_prompt() -> None:
    """(18 * 10 + 50 * 30) and (56 * 10 + 100 * 30) dollars a million, and half of that where a batch is half the price."""
    assert budget(None).estimate([PROMPT, PROMPT]) == pytest.approx(2 * 1680e-6)
    assert budget(None).worst(PROMPT) == pytest.approx(3560e-6)
    assert budget(None).worst(PROMPT, share=0.5) == pytest.approx(1780e-6)


def test_what_is_left_is_neither_spent_nor_set_aside() -> None:
    limited = budget(0.05)
    limited.reserve(0.01)
    limited.reserve(0.005)
    limited.spend(0.02)
    assert limited.left == pytest.approx(0.015)
    limited.settle(0.01, 0.002)
    assert limited.left == pytest.approx(0.023)
    assert budget(None).left is None


ANSWER = ChatAnswer("y" * 400, "stop", 18, 50, reasoning="z" * 400)
"""800 characters, about 200 tokens; a server that counts fewer than an eighth of that did not count."""


@pytest.mark.parametrize(
    ("prompt_tokens", "completion_tokens", "plausible"),
    [
        (3, 25, True),
        (2, 25, False),
        (3, 24, False),
        (560, 1000, True),
        (561, 1000, False),
        (560, 1001, False),
    ],
    ids=["the fewest", "18 / 8 are more", "200 / 8 are more", "the most", "10 * 56 are less", "10 * 100 are less"],
)
def test_counts_within_an_eighth_of_the_estimate_and_ten_times_the_worst_case_are_believed(
    prompt_tokens: int, completion_tokens: int, plausible: bool
) -> None:
    answer = replace(ANSWER, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    assert budget(None).plausible(PROMPT, answer) is plausible


def test_an_answer_that_was_not_counted_costs_its_worst_case_and_has_the_tokens_of_its_text_and_thoughts() -> None:
    unlimited = budget(None)
    assert unlimited.count(PROMPT, replace(ANSWER, completion_tokens=0)) == pytest.approx(3560e-6)
    assert (unlimited.spending.prompt_tokens, unlimited.spending.completion_tokens) == (18, 200)
