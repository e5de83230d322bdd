"""A client for servers that speak OpenAI's chat completions.

It retries with back-off, keeps within a limit of concurrent requests, and leaves the key in the environment. The standard
library's HTTP is used: one request takes seconds of a model's time, so nothing would be won by more.
"""

from __future__ import annotations

import email.message
import email.utils
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from gshf_release.errors import EngineError, NetworkError
from gshf_release.hashing import seed_from
from gshf_release.profile import Server
from gshf_release.records import FinishReason, Message
from gshf_release.run import interrupt

RETRIED = frozenset({408, 409, 425, 429})
"""Refusals that may pass, apart from those of 500 and above."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


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

    def as_json(self) -> dict[str, Any]:
        """Return the body of the HTTP request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        return body if self.seed is None else body | {"seed": self.seed}


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What the server answered."""

    text: str
    finish_reason: FinishReason
    """`length` if the limit cut it, else `stop`."""
    prompt_tokens: int
    completion_tokens: int
    """Both 0 if the server does not count."""


class _Passing(Exception):
    """A failure that another try may not have; `pause` is what the server asks for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to follow a redirect: it would carry the key to another address."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follow nowhere."""


class ChatClient:
    """Talks to the server of a profile."""

    def __init__(self, server: Server) -> None:
        """Prepare the client; nothing is sent yet.

        Raises:
            EngineError: The profile names no server.
        """
        if not server.address:
            raise EngineError(
                "The profile names no server.", hint="Set server.address in a profile, or give --server ADDRESS."
            )
        self.server = server
        self.address = f"{server.address.rstrip('/')}/chat/completions"
        self._opener = urllib.request.build_opener(_NoRedirects)

    def complete(self, request: ChatRequest) -> ChatAnswer:
        """Return the server's answer, after as many tries as the profile allows.

        Raises:
            EngineError: The server refuses the request for good (wrong key, unknown model, too long).
            NetworkError: It could not be reached, or failed, at every try.
            Interrupted: The process was asked to stop.
        """
        attempts = self.server.attempts
        for attempt in range(1, attempts + 1):
            interrupt.check()
            try:
                return self._try(request)
            except _Passing as failure:
                if attempt == attempts:
                    raise NetworkError(
                        f"{self.address} failed {attempts} times, at last with: {failure}.",
                        hint="Run the same command again; it goes on from there.",
                    ) from failure
                _wait(failure.pause or self._pause(attempt, request))
        raise AssertionError("unreachable: attempts is at least 1")

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
        answers: dict[int, ChatAnswer] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.server.concurrent_requests) as pool:
            waiting: dict[Future[ChatAnswer], int] = {}
            left = list(enumerate(requests))[::-1]
            while waiting or (left and failure is None):
                while left and failure is None and len(waiting) < self.server.concurrent_requests:
                    index, request = left.pop()
                    waiting[pool.submit(self.complete, request)] = index
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    index = waiting.pop(future)
                    failure = failure or future.exception()
                    if future.exception() is None:
                        answers[index] = future.result()
                        finished(index, answers[index])
        if failure is not None:
            raise failure
        return [answers[index] for index in range(len(requests))]

    def _try(self, request: ChatRequest) -> ChatAnswer:
        headers = {"Content-Type": "application/json", "User-Agent": "gshf-release"}
        key = os.environ.get(self.server.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        message = urllib.request.Request(self.address, json.dumps(request.as_json()).encode(), headers, method="POST")
        try:
            with self._opener.open(message, timeout=self.server.timeout_seconds) as answer:
                return _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            raise _Passing(str(getattr(error, "reason", error)) or type(error).__name__) from error

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """Return what an HTTP error means; a server may repeat the key in its text, which is taken out."""
        reason = f"HTTP {error.code}: {_reason(error)}"
        key = os.environ.get(self.server.key_variable)
        if key:
            reason = reason.replace(key, f"${self.server.key_variable}")
        if error.code in RETRIED or error.code >= 500:
            return _Passing(reason, _asked_pause(error.headers))
        hint = "See `server` in the profile and the name of the model in the recipe."
        if error.code in (401, 403):
            hint = f"Set the environment variable {self.server.key_variable} to a valid key."
        return EngineError(f"{self.address} refused the request with {reason}.", hint=hint)

    def _pause(self, attempt: int, request: ChatRequest) -> float:
        """Return seconds that double with every attempt, spread so that requests refused together do not return together."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        draw = seed_from("pause", attempt, json.dumps(request.as_json())) / 2**63
        return float(longest * (0.5 + 0.5 * draw))


def _parsed(body: bytes) -> ChatAnswer:
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        usage = document.get("usage") or {}
        return ChatAnswer(
            text=str(choice["message"].get("content") or "").encode("utf-8", "replace").decode("utf-8"),
            finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Passing("an answer that is no chat completion") from error


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
