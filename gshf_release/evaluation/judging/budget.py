"""Keep the cost of judging within its limit: it is estimated before, and watched while judges are asked.

The rule for tokens, which only the judge's own tokenizer would know exactly: an *estimate* takes four characters a token and
eight tokens a message; the *worst case* takes one token a byte of UTF-8, sixteen tokens a message and the longest judgment
allowed, which no tokenizer with a token for every byte exceeds. Each try reserves its worst case before it is sent and is
settled by what the server says it used; a try whose answer was lost is counted at its worst case, and so is one whose server
does not count or counts what cannot be: far fewer tokens than the text has, or far more than were asked for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.run import interrupt
from gshf_release.serving.openai_replies import ChatAnswer

CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 8
WORST_MESSAGE_TOKENS = 16
SPARSEST = 8
"""Times fewer tokens than estimated that a server may count; no text but a run of blanks has so few."""
DENSEST = 10
"""Times more tokens than the worst case that a server may count, for a template or thoughts that it adds."""
ASSUMED_LONGEST = 16_384
"""Tokens of the longest judgment where neither a limit nor the judge's context is set."""
ROUNDING = 1e-9
"""US dollars by which sums of floats may be off."""


@dataclass(frozen=True, slots=True)
class Spending:
    """Records what a session has asked for so far."""

    asked: int
    """Tries that the server answered."""
    cached: int
    """Judgments that were there already."""
    failed: int
    """Judgments that could not be had or used."""
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """US dollars, lost answers at their worst case; None if the price is not known."""

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} tokens"
        cost = "price not known" if self.cost is None else f"${self.cost:.4f}"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.asked} judgments asked for, {self.cached} from the cache{failed}; {tokens}, {cost}"


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a prompt has."""
    return sum(math.ceil(len(message["content"]) / CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS for message in messages)


def worst_tokens(messages: Sequence[Message]) -> int:
    """Return how many tokens a prompt has at the most."""
    return sum(len(message["content"].encode("utf-8", "replace")) + WORST_MESSAGE_TOKENS for message in messages)


class Budget:
    """The money and tokens of one session; its threads share it."""

    def __init__(self, settings: JudgeSettings, max_cost: float | None) -> None:
        """Begin with nothing spent.

        Raises:
            EngineError: There is a limit, but the judge's price is not known.
        """
        if max_cost is not None and not settings.price.known:
            raise EngineError(
                f"--max-cost needs the price of the judge {settings.name}, which its file does not say.",
                hint="Set price.input and price.output (US dollars per million tokens; 0 if it is free).",
            )
        if max_cost is not None and settings.parameters.max_tokens is None and settings.context is None:
            raise EngineError(
                f"--max-cost needs to know how long a judgment of {settings.name} may be.",
                hint="Set parameters.max_tokens, or the judge's context.",
            )
        self.settings = settings
        self.max_cost = max_cost
        self.cached = self.failed = 0
        self._asked = self._prompt_tokens = self._completion_tokens = 0
        self._spent = self._reserved = 0.0
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def spending(self) -> Spending:
        """Return what was spent so far."""
        with self._changed:
            cost = self._spent if self.settings.price.known else None
            return Spending(self._asked, self.cached, self.failed, self._prompt_tokens, self._completion_tokens, cost)

    def estimate(self, prompts: Sequence[Sequence[Message]], share: float = 1.0) -> float:
        """Return about what judging the prompts costs, in US dollars."""
        tokens = sum(estimated_tokens(prompt) for prompt in prompts)
        return share * self.settings.price.of(tokens, len(prompts) * self.settings.expected_tokens)

    def worst(self, prompt: Sequence[Message], share: float = 1.0) -> float:
        """Return what one try costs at the most, in US dollars."""
        return share * self.settings.price.of(worst_tokens(prompt), self.longest)

    @property
    def longest(self) -> int:
        """Return how many tokens a judgment has at the most."""
        return self.settings.parameters.max_tokens or self.settings.context or ASSUMED_LONGEST

    def check_estimate(self, estimate: float) -> None:
        """Refuse work that is expected to exceed the limit, before any of it is paid for.

        Raises:
            EngineError: It is.
        """
        if self.max_cost is not None and self._spent + estimate > self.max_cost + ROUNDING:
            raise EngineError(
                f"Judging is expected to cost ${estimate:.4f} after the ${self._spent:.4f} already spent; --max-cost is "
                f"${self.max_cost:.4f}.",
                hint="Raise --max-cost, or judge fewer answers; nothing more was asked for.",
            )

    def reserve(self, worst: float) -> None:
        """Wait until a try of this worst case fits the limit whatever the others under way cost, and set it aside.

        Raises:
            EngineError: It does not fit even alone.
            Interrupted: The process was asked to stop.
        """
        with self._changed:
            while self.max_cost is not None and self._spent + self._reserved + worst > self.max_cost + ROUNDING:
                interrupt.check()
                if self._under_way == 0:
                    raise EngineError(
                        f"Judging stopped at ${self._spent:.4f} of --max-cost ${self.max_cost:.4f}: the next judgment may cost "
                        f"${worst:.4f}.",
                        hint="Run the same command with a higher --max-cost; judgments made so far are not paid again.",
                    )
                self._changed.wait(0.2)
            self._reserved += worst
            self._under_way += 1

    def settle(self, worst: float, cost: float) -> None:
        """Replace what was set aside by what was spent."""
        with self._changed:
            self._under_way -= 1
            self._reserved = self._reserved - worst if self._under_way else 0.0
            self._spent += cost
            self._changed.notify_all()

    @property
    def left(self) -> float | None:
        """Return the US dollars that may still be spent, or None without a limit."""
        with self._changed:
            return None if self.max_cost is None else self.max_cost - self._spent - self._reserved

    def plausible(self, prompt: Sequence[Message], answer: ChatAnswer) -> bool:
        """Return whether a server's counts of tokens can be what it worked for; of a prompt that is not known any count can."""
        if not prompt:
            return answer.prompt_tokens > 0
        written = len(answer.text) + len(answer.reasoning)
        fewest = estimated_tokens(prompt) / SPARSEST
        return (
            max(1, fewest) <= answer.prompt_tokens <= DENSEST * worst_tokens(prompt)
            and written / CHARACTERS_PER_TOKEN / SPARSEST <= answer.completion_tokens <= DENSEST * self.longest
        )

    def count(self, prompt: Sequence[Message], answer: ChatAnswer) -> float:
        """Count an answer and its tokens, estimated if the server's counts cannot be, and return what it cost."""
        counted = self.plausible(prompt, answer)
        written = math.ceil((len(answer.text) + len(answer.reasoning)) / CHARACTERS_PER_TOKEN)
        with self._changed:
            self._asked += 1
            self._prompt_tokens += answer.prompt_tokens if counted else estimated_tokens(prompt)
            self._completion_tokens += answer.completion_tokens if counted else written
        return self.settings.price.of(answer.prompt_tokens, answer.completion_tokens) if counted else self.worst(prompt)

    def spend(self, cost: float) -> None:
        """Count what was spent and not set aside."""
        with self._changed:
            self._spent += cost


class TryMeter:
    """Reserves and settles the tries of one request."""

    def __init__(self, budget: Budget, prompt: Sequence[Message]) -> None:
        self.budget = budget
        self.prompt = prompt
        self.worst = budget.worst(prompt)

    def begin(self) -> None:
        """Set the worst case aside."""
        self.budget.reserve(self.worst)

    def failed(self, charged: bool) -> None:
        """Give it back, or count it as spent."""
        self.budget.settle(self.worst, self.worst if charged else 0.0)

    def answered(self, answer: ChatAnswer) -> float:
        """Count what the answer cost, and return it in US dollars."""
        cost = self.budget.count(self.prompt, answer)
        self.budget.settle(self.worst, cost)
        return cost
