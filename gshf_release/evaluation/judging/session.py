"""Ask a judge many things at once: from the cache what is there, from the server what is not, within the money allowed.

session = JudgeSession(settings, default_folder(), max_cost=5.0, say=print)
judgments = session.judge(prompts)
print(session.spending)
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import sha256_json
from gshf_release.data.records import Message
from gshf_release.errors import AnswerError, EngineError, RefusedRequestError
from gshf_release.evaluation.judging.answering import AnsweringModels
from gshf_release.evaluation.judging.budget import Budget, Spending, TryMeter, estimated_tokens
from gshf_release.evaluation.judging.cache import Cache, Judgment, refused_judgment
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.verdicts.reading import Reading, announced
from gshf_release.serving.openai_client import ChatClient, ChatRequest, concurrently
from gshf_release.serving.openai_refusals import SettingNames
from gshf_release.serving.openai_replies import ChatAnswer

FORMAT = 1
"""Of the keys of the cache."""
EMPTY = "empty answer"
ONLY_THOUGHTS = "thoughts without an answer"
TOO_LONG = "prompt longer than the judge's context"
FIRST_FAILURES = 5
"""Prompts that a server does not answer, before it has answered any, from which on the server is at fault and no prompt is."""
LATER_FAILURES = 20
"""The same where the cache holds judgments: the server has answered before."""


def silent(line: str) -> None:
    """Say nothing."""


def any_judgment(judgment: Judgment) -> str:
    """Understand every judgment."""
    return ""


@dataclass(frozen=True, slots=True)
class JudgmentRequest:
    """One judgment wanted."""

    key: str
    """Its identity: everything it depends on, and no secret."""
    request: ChatRequest


AskInBatches = Callable[["JudgeSession", Sequence[JudgmentRequest]], dict[str, Judgment]]
"""Returns the judgments that batches gave, by key."""


class JudgeSession:
    """One judge, one cache, one budget; used by one thread at a time."""

    def __init__(
        self,
        settings: JudgeSettings,
        folder: Path,
        *,
        max_cost: float | None = None,
        data: Path | None = None,
        say: Callable[[str], None] = silent,
        batch: AskInBatches | None = None,
        since: float = 0.0,
    ) -> None:
        """Prepare the session; nothing is sent yet.

        Args:
            settings: The judge.
            folder: Where judgments are kept, shared by all runs; see `cache.default_folder`.
            max_cost: US dollars that may be spent in it.
            data: A folder of benchmark files, looked through first.
            say: Told the estimate before the first request and the spending after the last, one line each.
            batch: `batch.judge_in_batches` asks through the server's Batch API; None asks one by one.
            since: Judgments in the cache that are older are asked for anew; seconds since 1970.

        Raises:
            EngineError: The judge names no model or address, or no price though there is a limit.
        """
        self.model, endpoint = settings.ready()
        self.settings = settings
        self.data = data
        self.say = say
        self.batch = batch
        self.cache = Cache(folder)
        self.budget = Budget(settings, max_cost)
        self.since = since
        self.understood: Callable[[Judgment], str] = any_judgment
        self.models = AnsweringModels(self.model)
        self._failures = Failures(FIRST_FAILURES)
        place = f"`endpoint` and `parameters` of the judge {settings.name}"
        self.client = ChatClient(endpoint, SettingNames(place, "endpoint.address", "`model`", "parameters"))

    @property
    def spending(self) -> Spending:
        """Return what was asked for and spent so far."""
        return self.budget.spending

    def judge(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        repeat: int = 0,
        understood: Callable[[Judgment], str] = any_judgment,
    ) -> list[Judgment]:
        """Return one judgment per prompt, in their order. Equal prompts are asked once.

        A judgment that could not be had or understood is `failed` and not cached: the same command asks for it again.

        Args:
            prompts: The messages of each.
            repeat: Judgments of another repeat are asked for anew, to measure how much the judge differs from itself.
            understood: Returns "" if the benchmark's protocol can read a verdict out of a judgment, else why it cannot.

        Raises:
            EngineError: The server refuses for good, or the limit is reached.
            NetworkError: The server gave up.
            Interrupted: The process was asked to stop; the same command goes on.
        """
        wanted = [self.wanted(prompt, repeat) for prompt in prompts]
        self.understood = understood
        found = {each.key: judgment for each in wanted if (judgment := self.cached(each.key)) is not None}
        missing = list({each.key: each for each in wanted if each.key not in found}.values())
        self.budget.cached += len(found)
        if found:
            self._tell_cached(list(found.values()), len(missing))
        if missing:
            self._failures = Failures(LATER_FAILURES if found else min(FIRST_FAILURES, len(missing)))
            self._announce(missing, len(found))
            if self.batch:
                found |= self.batch(self, missing)
            left = [each for each in missing if each.key not in found]
            if self.batch and left:
                self._announce(left, len(found), " one by one")
            judgments = concurrently(self._ask, left, self.client.server.concurrent_requests)
            found |= {each.key: judgment for each, judgment in zip(left, judgments, strict=True)}
            self.say(f"{self.settings.name}: {self.spending}.")
        return self._with_doubts([found[each.key] for each in wanted])

    def _with_doubts(self, judgments: Sequence[Judgment]) -> list[Judgment]:
        """Return judgments that say whether another model made them than was asked for, which is told once."""
        before = self.models.warning()
        for judgment in judgments:
            if not judgment.failed:
                self.models.add(judgment.model)
        warning = self.models.warning()
        if warning and warning != before:
            self.say(f"Warning: {warning}")
        return [
            judgment if judgment.failed else replace(judgment, doubt=self.models.doubt(judgment.model))
            for judgment in judgments
        ]

    def accept(self, readings: Sequence[Reading[Any]], total: int, what: str) -> None:
        """Count failed judgments and refuse the result if they are too many; say what makes one doubt the others.

        Args:
            readings: What was read of each judgment.
            total: How many there are, those that needed no judge included.
            what: What was judged, for the messages.

        Raises:
            EngineError: The share is above the judge's `failed_share`.
        """
        failures = [reading.failed for reading in readings if reading.value is None]
        self.budget.failed += len(failures)
        reasons = ", ".join(f"{count} x {reason}" for reason, count in Counter(failures).most_common(3))
        if len(failures) > self.settings.failed_share * total:
            raise EngineError(
                f"{len(failures)} of {total} judgments of {what} by {self.settings.name} failed ({reasons}); "
                f"{self.settings.failed_share:.0%} are allowed.",
                hint="Run the same command again to ask for those once more, or raise the judge's failed_share.",
            )
        if failures:
            self.say(f"{len(failures)} of {total} judgments of {what} failed ({reasons}) and count as missing.")
        for line in announced([reading.doubts for reading in readings if reading.value is not None], total, what):
            self.say(line)

    def wanted(self, prompt: Sequence[Message], repeat: int = 0) -> JudgmentRequest:
        """Return what is sent for a prompt, and the identity of its judgment."""
        parameters = self.settings.parameters
        request = ChatRequest(
            model=self.model,
            messages=list(prompt),
            temperature=parameters.temperature,
            max_tokens=parameters.max_tokens,
            top_p=parameters.top_p,
            seed=None if parameters.seed is None else parameters.seed + repeat,
            top_logprobs=parameters.top_logprobs,
            limit_key=parameters.limit_key,
            extra=parameters.extra,
            system_role=parameters.system_role,
        )
        identity = {
            "format": FORMAT,
            "address": self.client.address,
            "body": request.as_json(),
            "repeat": repeat,
        }
        return JudgmentRequest(sha256_json(identity), request)

    def cached(self, key: str) -> Judgment | None:
        """Return the judgment in the cache, unless it is too old, or not understood: an earlier version stored those too."""
        judgment = self.cache.get(key)
        if judgment is None or judgment.asked_at < self.since or self.understood(judgment):
            return None
        return judgment

    def receive(self, key: str, prompt: Sequence[Message], answer: ChatAnswer, share: float) -> Judgment:
        """Count an answer that came in a batch at `share` of the price, and cache it if it is understood."""
        with self.cache.lock(key):
            known = self.cached(key)
            if known is not None:
                return known
            cost = share * self.budget.count(prompt, answer)
            self.budget.spend(cost)
            return self._checked(key, self._judgment(answer, cost, 0.0))

    def _checked(self, key: str, judgment: Judgment) -> Judgment:
        """Cache a judgment that is understood; return any other as failed, with its text."""
        if not judgment.failed and (reason := self.understood(judgment)):
            judgment = replace(judgment, failed=reason)
        if not judgment.failed:
            self.cache.put(key, judgment)
        return judgment

    def _tell_cached(self, found: Sequence[Judgment], missing: int) -> None:
        """Tell how many judgments are from the cache, of when and by whom; the same name may be another model today."""
        days = sorted(time.strftime("%Y-%m-%d", time.gmtime(judgment.asked_at)) for judgment in found)
        when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
        names = ", ".join(sorted({judgment.model for judgment in found if judgment.model})[:3])
        told = f"{when}, answered by {names}" if names else when
        asked = "" if missing else ", 0 asked; --ask-again all asks for them anew"
        self.say(
            f"{self.settings.name}: {len(found)} of {len(found) + missing} judgments from the cache ({told}){asked}."
        )

    def _announce(self, missing: Sequence[JudgmentRequest], cached: int, how: str = "") -> None:
        """Tell what is to come and about what it costs; more than the limit allows is refused.

        Args:
            missing: What is asked for.
            cached: How many others are there.
            how: How they are asked for, if not in the way that the user chose.
        """
        prompts = [each.request.messages for each in missing]
        share = self.settings.price.batch if self.batch and not how else 1.0
        estimate = self.budget.estimate(prompts, share)
        tokens = sum(map(estimated_tokens, prompts))
        expected = len(prompts) * self.settings.expected_tokens
        cost = f"about ${estimate:.2f}" if self.settings.price.known else "price not known"
        self.say(
            f"{self.settings.name}: {len(prompts)} judgments to ask {self.model} for{how}, {cached} in the cache; "
            f"about {tokens} + {expected} tokens, {cost}."
        )
        self.budget.check_estimate(estimate)

    def _ask(self, wanted: JudgmentRequest) -> Judgment:
        """Return the judgment, from another process if that has asked meanwhile."""
        with self.cache.lock(wanted.key):
            judgment = self.cached(wanted.key)
            if judgment is not None:
                return judgment
            if self.too_long(wanted):
                return refused_judgment(TOO_LONG)
            return self._checked(wanted.key, self._ask_server(wanted))

    def _ask_server(self, wanted: JudgmentRequest) -> Judgment:
        """Ask, and ask again when nothing is said, unless it is said why.

        Raises:
            EngineError: The server has answered none of the first prompts: it is at fault, no prompt is.
        """
        meter = TryMeter(self.budget, wanted.request.messages)
        judgment = refused_judgment(EMPTY)
        for _ in range(self.settings.answer_attempts):
            begun = time.time()
            try:
                answer = self.client.complete(wanted.request, meter)
            except (RefusedRequestError, AnswerError) as error:
                self._failures.add(error)
                return refused_judgment(error.reason)
            self._failures.answered()
            judgment = self._judgment(answer, meter.answered(answer), time.time() - begun)
            if not judgment.failed or answer.cut or answer.refused:
                break
        return judgment

    def _judgment(self, answer: ChatAnswer, cost: float, seconds: float) -> Judgment:
        """Return an answer as a judgment, failed if it says nothing."""
        judgment = judgment_of(answer, cost if self.settings.price.known else None, seconds)
        return judgment if usable(answer) else replace(judgment, failed=self._why_empty(answer))

    def _why_empty(self, answer: ChatAnswer) -> str:
        """Return why an answer says nothing."""
        limit = self.settings.parameters.max_tokens
        raised = "raise parameters.max_tokens" + (f", now {limit}" if limit is not None else "")
        if answer.refused:
            return answer.refused
        if answer.cut:
            spent = "all its tokens went into thoughts" if answer.reasoning else "cut by the limit before any text"
            return f"{spent} (finish_reason {answer.finish_reason}): {raised}"
        return ONLY_THOUGHTS if answer.reasoning else EMPTY

    def too_long(self, wanted: JudgmentRequest) -> bool:
        """Return whether a prompt is, as far as its tokens can be estimated, beyond the judge's context."""
        context = self.settings.context
        return context is not None and estimated_tokens(wanted.request.messages) > context


class Failures:
    """Tells a server that answers nothing from prompts that it does not answer."""

    def __init__(self, most: int) -> None:
        """Begin without any.

        Args:
            most: So many, before any answer, show the server to be at fault.
        """
        self._most = most
        self._count = 0
        self._lock = threading.Lock()
        self._any_answer = False

    def answered(self) -> None:
        """Note that the server answers."""
        self._any_answer = True

    def add(self, error: RefusedRequestError | AnswerError) -> None:
        """Count a prompt without an answer, unless the server says that this one prompt is the reason.

        Raises:
            EngineError: There are too many without any answer.
        """
        if isinstance(error, RefusedRequestError) and not error.unclear:
            return
        with self._lock:
            self._count += 1
            if self._count >= self._most and not self._any_answer:
                tried = f" It has answered none of the {self._count} prompts tried." if self._count > 1 else ""
                raise EngineError(error.message + tried, hint=error.hint) from error


def usable(answer: ChatAnswer) -> bool:
    """Return whether an answer says something; a blank first token has alternatives all the same."""
    return bool(answer.text.strip() or answer.logprobs)


def judgment_of(answer: ChatAnswer, cost: float | None, seconds: float) -> Judgment:
    """Return a server's answer as a judgment of now."""
    return Judgment(
        text=answer.text,
        model=answer.model,
        finish_reason=answer.finish_reason,
        reasoning=answer.reasoning,
        logprobs=answer.logprobs,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        asked_at=time.time(),
        seconds=seconds,
        cost=cost,
    )
