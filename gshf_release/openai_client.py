"""A client for servers that speak OpenAI's chat completions.

It retries with back-off, keeps within a limit of concurrent requests, and leaves the key in the environment. The standard
library's HTTP is used: one request takes seconds of a model's time, so nothing would be won by more.
"""

from __future__ import annotations

import email.message
import email.utils
import json
import os
import socket
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol, TypeVar

from gshf_release.errors import AnswerError, EngineError, NetworkError
from gshf_release.hashing import seed_from
from gshf_release.profile import Server
from gshf_release.records import Message
from gshf_release.run import interrupt

RETRIED = frozenset({408, 409, 425, 429})
"""Refusals that may pass, apart from those of 500 and above."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer wanted."""

    model: str
    messages: list[Message]
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    seed: int | None = None
    """For servers that can draw reproducibly; others ignore it."""
    top_logprobs: int | None = None
    """How many alternatives of each token are wanted with their log-probabilities; None wants no log-probabilities."""
    limit_key: str = "max_tokens"
    """What the server calls the limit: OpenAI's reasoning models want `max_completion_tokens`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the body that a server knows."""

    def as_json(self) -> dict[str, Any]:
        """Return the body of the HTTP request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            self.limit_key: self.max_tokens,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body | dict(self.extra)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What the server answered."""

    text: str
    """What it says, without what it thought."""
    finish_reason: str
    """The server's own: `stop`, `length` if the limit cut it, `content_filter` and others; `stop` if it gives none."""
    prompt_tokens: int
    completion_tokens: int
    """Both 0 if the server does not count."""
    model: str = field(default="", compare=False)
    """What the server says answered, which may be more exact than what was asked for."""
    logprobs: list[dict[str, Any]] | None = field(default=None, compare=False)
    """Per token `{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}`; None if the server gave none."""
    reasoning: str = ""
    """What a reasoning model thought before it answered, where the server gives that apart; never part of `text`."""


class Meter(Protocol):
    """Watches what the tries of one request may cost."""

    def begin(self) -> None:
        """Called before each try; what it raises stops the request."""

    def failed(self, charged: bool) -> None:
        """Called after a try without an answer; `charged` if the server may have worked for it all the same."""


class _Passing(Exception):
    """A failure that another try may not have.

    `pause` is what the server asks for, in seconds; `answered` if it gave something that is no answer; `charged` if it may
    have worked for it.
    """

    def __init__(self, reason: str, pause: float = 0.0, *, answered: bool = False, charged: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        self.answered = answered
        self.charged = charged or answered


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to follow a redirect: it would carry the key to another address."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follow nowhere."""


class ChatClient:
    """Talks to the server of a profile."""

    def __init__(self, server: Server, settings: str = "`server` in the profile") -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            server: Where it is, and how patiently it is asked.
            settings: What a message calls the place where the user wrote that.

        Raises:
            EngineError: The profile names no server.
        """
        if not server.address:
            raise EngineError(
                "The profile names no server.", hint="Set server.address in a profile, or give --server ADDRESS."
            )
        self.server = server
        self.settings = settings
        self.root = server.address.rstrip("/")
        self.address = self._address("/chat/completions")
        self._opener = urllib.request.build_opener(_NoRedirects)

    def complete(self, request: ChatRequest, meter: Meter | None = None) -> ChatAnswer:
        """Return the server's answer, after as many tries as the profile allows.

        Raises:
            EngineError: The server refuses the request for good (wrong key, unknown model, too long).
            AnswerError: It answered at the last try, but with no chat completion.
            NetworkError: It could not be reached, or failed, at every try.
            Interrupted: The process was asked to stop.
        """
        body = json.dumps(request.as_json()).encode()

        def attempt() -> ChatAnswer:
            if meter is not None:
                meter.begin()
            try:
                answer = parsed(self._open("POST", self.address, body, "application/json"))
                if answer is None:
                    raise _Passing("an answer that is no chat completion", answered=True)
                return answer
            except _Passing as failure:
                if meter is not None:
                    meter.failed(failure.charged)
                raise
            except EngineError:
                if meter is not None:
                    meter.failed(False)
                raise

        return self._persist(self.address, attempt, body.decode())

    def send(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", *, attempts: int = 0
    ) -> bytes:
        """Return what the server answers to another request, for example `send("GET", "/batches/b1")`.

        Args:
            method: Of HTTP.
            path: Below the server's address.
            body: What is sent along.
            kind: The body's content type.
            attempts: How often it is tried, if not as often as the profile says.

        Raises:
            EngineError: The server refuses it for good.
            NetworkError: The server could not be reached, or failed, at every try.
            Interrupted: The process was asked to stop.
        """
        address = self._address(path)
        draw = f"{method} {path} {zlib.crc32(body or b'')}"
        return self._persist(address, lambda: self._open(method, address, body, kind), draw, attempts)

    def _persist(self, address: str, attempt: Callable[[], Result], draw: str, attempts: int = 0) -> Result:
        """Return what `attempt` returns, trying again after failures that may pass."""
        attempts = attempts or self.server.attempts
        for number in range(1, attempts + 1):
            interrupt.check()
            try:
                return attempt()
            except _Passing as failure:
                if number == attempts:
                    raise (AnswerError if failure.answered else NetworkError)(
                        f"{address} failed {attempts} times, at last with: {failure}.",
                        hint="Run the same command again; it goes on from there.",
                    ) from failure
                _wait(failure.pause or _pause(number, draw))
        raise AssertionError("unreachable: attempts is at least 1")

    def _address(self, path: str) -> str:
        version = self.server.api_version
        return self.root + path + (f"?api-version={version}" if version else "")

    def complete_all(
        self, requests: Sequence[ChatRequest], finished: Callable[[int, ChatAnswer], None]
    ) -> list[ChatAnswer]:
        """Return the answers in the order of `requests`, with at most `concurrent_requests` under way.

        Args:
            requests: What is wanted.
            finished: Called in this thread as `finished(index, answer)` when an answer comes, after a failure too for those
                requests that were under way, because they are paid for.

        Raises:
            EngineError: As `complete`, for the first request that failed.
            NetworkError: Likewise.
            Interrupted: Likewise.
        """
        return concurrently(self.complete, requests, self.server.concurrent_requests, finished)

    def _open(self, method: str, address: str, body: bytes | None, kind: str) -> bytes:
        """Return the body of one answer."""
        headers = {"User-Agent": "gshf-release"} | ({} if body is None else {"Content-Type": kind})
        key = os.environ.get(self.server.key_variable)
        if key and self.server.key_header == "Authorization":
            headers["Authorization"] = f"Bearer {key}"
        elif key:
            headers[self.server.key_header] = key
        message = urllib.request.Request(address, body, headers, method=method)
        try:
            with self._opener.open(message, timeout=self.server.timeout_seconds) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, address) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            unsent = isinstance(reason, ConnectionRefusedError | socket.gaierror)
            raise _Passing(str(reason) or type(error).__name__, charged=not unsent) from error

    def _refusal(self, error: urllib.error.HTTPError, address: str) -> Exception:
        """Return what an HTTP error means; a server may repeat the key in its text, which is taken out."""
        reason = f"HTTP {error.code}: {_reason(error)}"
        key = os.environ.get(self.server.key_variable)
        if key:
            reason = reason.replace(key, f"${self.server.key_variable}")
        if error.code in RETRIED or error.code >= 500:
            return _Passing(reason, _asked_pause(error.headers))
        hint = f"See {self.settings} and the name of the model."
        if error.code in (401, 403):
            hint = f"Set the environment variable {self.server.key_variable} to a valid key."
        return EngineError(f"{address} refused the request with {reason}.", hint=hint)


def concurrently(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    limit: int,
    finished: Callable[[int, Result], None] = lambda index, result: None,
) -> list[Result]:
    """Return `work(item)` for all items in their order, with at most `limit` under way in threads.

    After a failure nothing new begins, but what is under way is waited for and heard of, because it is paid for.

    Args:
        work: Called in a thread.
        items: What it is called with.
        limit: How many at once.
        finished: Called in this thread as `finished(index, result)` when a result comes, after a failure too.

    Raises:
        BaseException: What `work` raised first.
    """
    results: dict[int, Result] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(limit) as pool:
        waiting: dict[Future[Result], int] = {}
        left = list(enumerate(items))[::-1]
        while waiting or (left and failure is None):
            while left and failure is None and len(waiting) < limit:
                index, item = left.pop()
                waiting[pool.submit(work, item)] = index
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                index = waiting.pop(future)
                failure = failure or future.exception()
                if future.exception() is None:
                    results[index] = future.result()
                    finished(index, results[index])
    if failure is not None:
        raise failure
    return [results[index] for index in range(len(items))]


def _pause(attempt: int, text: str) -> float:
    """Return seconds that double with every attempt, spread so that requests refused together do not return together."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    draw = seed_from("pause", attempt, text) / 2**63
    return float(longest * (0.5 + 0.5 * draw))


def parsed(body: bytes) -> ChatAnswer | None:
    """Return the chat completion in the body of an answer, or None if it is none."""
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        usage = document.get("usage") or {}
        return ChatAnswer(
            text=str(choice["message"].get("content") or "").encode("utf-8", "replace").decode("utf-8"),
            reasoning=_reasoning(choice["message"]),
            finish_reason=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            model=str(document.get("model") or ""),
            logprobs=_logprobs(choice),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _reasoning(message: Mapping[str, Any]) -> str:
    """Return the thinking that a server gives apart; servers differ in what they call it."""
    texts = [message.get(name) for name in ("reasoning_content", "reasoning")]
    return next((text for text in texts if isinstance(text, str) and text), "").encode("utf-8", "replace").decode()


def _logprobs(choice: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the log-probabilities of the answer's tokens; servers differ in how they say that there are none."""
    found = (choice.get("logprobs") or {}).get("content")
    return list(found) if found else None


def _reason(error: urllib.error.HTTPError) -> str:
    """Return the server's explanation as one short line."""
    try:
        text = error.read(10_000).decode("utf-8", errors="replace")
    except (OSError, HTTPException):
        return str(error.reason)
    try:
        document = json.loads(text)
        found = document.get("error", document) if isinstance(document, dict) else document
        text = str(found.get("message", found) if isinstance(found, dict) else found)
    except ValueError:
        pass
    return " ".join(text.split())[:200].rstrip(".") or str(error.reason)


def _asked_pause(headers: email.message.Message) -> float:
    """Return the seconds of a Retry-After header (a number or a date), or 0."""
    value = headers.get("Retry-After")
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)


def _wait(seconds: float) -> None:
    """Sleep, but stop when the process is asked to."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interrupt.check()
        time.sleep(min(left, 0.2))
