"""The limit of a session's cost: what is expected, what is set aside and what a server counts, worked out by hand."""

from __future__ import annotations

import pytest

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.evaluation.judging import judges
from gshf_release.evaluation.judging.budget import Budget

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
