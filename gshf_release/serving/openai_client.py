"""A client for servers that speak OpenAI's chat completions.

It retries with back-off, keeps within a limit of concurrent requests, and leaves the key in the environment. The standard
library's HTTP is used: one request takes seconds of a model's time, so nothing would be won by more. What an answer says is
read in openai_replies.py, what a refusal means in openai_refusals.py.
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
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http.client import HTTPException
from typing import IO, Any, Protocol, TypeVar

from gshf_release.data.hashing import seed_from
from gshf_release.data.key_masking import Mask
from gshf_release.data.records import Message
from gshf_release.errors import AnswerError, EngineError, NetworkError, RefusedRequestError
from gshf_release.recipe.profile import Server
from gshf_release.run import interrupt
from gshf_release.serving.openai_refusals import Refusal, SettingNames, refusal
from gshf_release.serving.openai_replies import ChatAnswer, UnreadableReply, decoded, read_chat

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
UNREADABLE_TRIES = 3
"""How often at most an answer that is none is asked for again: a page of HTML stays one, as a rule."""
MOST_BYTES = 32 * 2**20
"""Of a chat completion; one of 2,048 tokens with 20 alternatives each has about 3 MiB."""
MOST_FILE_BYTES = 2**30
"""Of any other answer, such as the results of a batch."""
PIECE_BYTES = 2**16
SLOWEST = 10_000.0
"""Bytes a second that an answer must have once it has begun, after the time that the profile allows."""
ENDPOINT = "/chat/completions"
NOT_IN_A_KEY = {"\n": "a line break", "\r": "a line break", " ": "a blank", '"': "a quote", "'": "a quote"}
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer wanted."""

    model: str
    messages: list[Message]
    temperature: float | None
    """None of this, `max_tokens` and `top_p` is sent if it is None; the server's own then counts."""
    max_tokens: int | None
    top_p: float | None = 1.0
    seed: int | None = None
    """For servers that can draw reproducibly; others ignore it."""
    top_logprobs: int | None = None
    """How many alternatives of each token are wanted with their log-probabilities; None wants no log-probabilities."""
    limit_key: str = "max_tokens"
    """What the server calls the limit: OpenAI's reasoning models want `max_completion_tokens`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the body that a server knows."""
    system_role: bool = True
    """Whether the server takes a system turn; else its text heads the first user's turn."""

    def as_json(self) -> dict[str, Any]:
        """Return the body of the HTTP request."""
        sent = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            self.limit_key: self.max_tokens,
            "seed": self.seed,
        }
        messages = self.messages if self.system_role else without_system(self.messages)
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        body |= {name: value for name, value in sent.items() if value is not None}
        if self.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body | dict(self.extra)


class Meter(Protocol):
    """Watches what the tries of one request may cost."""

    def begin(self) -> None:
        """Called before each try; what it raises stops the request."""

    def failed(self, charged: bool) -> None:
        """Called after a try without an answer; `charged` if the server may have worked for it all the same."""


class _TransientFailure(Exception):
    """A failure that another try may not have.

    `pause` is what the server asks for, in seconds; `answered` if it gave something that is no answer; `charged` if it may
    have worked for it.
    """

    def __init__(self, reason: str, pause: float = 0.0, *, answered: bool = False, charged: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        self.answered = answered
        self.charged = charged

    @property
    def tries(self) -> int:
        """Return how often at most it is worth a try."""
        return UNREADABLE_TRIES if self.answered else 10**9


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to follow a redirect: it would carry the key to another address."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follow nowhere."""


class ChatClient:
    """Talks to the server of a profile."""

    def __init__(self, server: Server, names: SettingNames = SettingNames()) -> None:  # noqa: B008
        """Prepare the client; nothing is sent yet.

        Args:
            server: Where it is, and how patiently it is asked. An address that ends in `/chat/completions` is taken as meant.
            names: What messages call the settings that the user wrote.

        Raises:
            EngineError: The profile names no server.
        """
        if not server.address:
            raise EngineError(
                "The profile names no server.", hint="Set server.address in a profile, or give --server ADDRESS."
            )
        self.server = server
        self.names = names
        self.root = server.address.rstrip("/").removesuffix(ENDPOINT).rstrip("/")
        self.address = self._address(ENDPOINT)
        self._opener = urllib.request.build_opener(_NoRedirects)

    @property
    def mask(self) -> Callable[[str], str]:
        """Return what takes the key out of a server's text."""
        return _mask(os.environ.get(self.server.key_variable, "").strip(), self.server.key_variable)

    def complete(self, request: ChatRequest, meter: Meter | None = None) -> ChatAnswer:
        """Return the server's answer, after as many tries as the profile allows.

        Raises:
            RefusedRequestError: The server refuses this request; others it may answer.
            EngineError: It refuses all requests for good (wrong key, unknown model, no credit).
            AnswerError: It answered at the last try, but with no chat completion.
            NetworkError: It could not be reached, or failed, at every try.
            Interrupted: The process was asked to stop.
        """
        body = json.dumps(request.as_json()).encode()

        def attempt() -> ChatAnswer:
            if meter is not None:
                meter.begin()
            try:
                return self._answer(body)
            except (_TransientFailure, EngineError) as failure:
                if meter is not None:
                    meter.failed(isinstance(failure, _TransientFailure) and failure.charged)
                raise

        return self._persist(self.address, attempt, body.decode())

    def _answer(self, body: bytes) -> ChatAnswer:
        """Return the answer to one try."""
        try:
            return read_chat(self._open("POST", self.address, body, "application/json", MOST_BYTES), self.mask)
        except UnreadableReply as reply:
            if reply.refusal is not None:
                raise self._refused(reply.refusal, self.address) from None
            if reply.final:
                raise EngineError(f"{self.address} answers with {reply}.", hint=f"See {self.names.place}.") from None
            raise _TransientFailure(str(reply), answered=True, charged=reply.charged) from None

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
        return self._persist(address, lambda: self._open(method, address, body, kind, MOST_FILE_BYTES), draw, attempts)

    def _persist(self, address: str, attempt: Callable[[], Result], draw: str, attempts: int = 0) -> Result:
        """Return what `attempt` returns, trying again after failures that may pass."""
        attempts = attempts or self.server.attempts
        for number in range(1, attempts + 1):
            interrupt.check()
            try:
                return attempt()
            except _TransientFailure as failure:
                if number == min(attempts, failure.tries):
                    message = f"{address} failed {number} times, at last with: {failure}."
                    hint = "Run the same command again; it goes on from there."
                    if failure.answered:
                        raise AnswerError(message, hint=hint, reason=str(failure)) from failure
                    raise NetworkError(message, hint=hint) from failure
                interrupt.sleep(failure.pause or _pause(number, draw))
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

    def _open(self, method: str, address: str, body: bytes | None, kind: str, most: int) -> bytes:
        """Return the body of one answer."""
        headers = {"User-Agent": "gshf-release"} | ({} if body is None else {"Content-Type": kind})
        key = self._key()
        if key and self.server.key_header == "Authorization":
            headers["Authorization"] = f"Bearer {key}"
        elif key:
            headers[self.server.key_header] = key
        try:
            message = urllib.request.Request(address, body, headers, method=method)
            with self._opener.open(message, timeout=self.server.timeout_seconds) as answer:
                return self._read(answer, answer.headers, most)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, address) from None
        except zlib.error:
            raise _TransientFailure("an answer that cannot be unpacked", answered=True, charged=True) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            unsent = isinstance(reason, ConnectionRefusedError | socket.gaierror)
            raise _TransientFailure(self.mask(str(reason)) or type(error).__name__, charged=not unsent) from error
        except (ValueError, OverflowError) as error:
            raise EngineError(
                f"{address} is no address that can be asked: {error}.", hint=f"See {self.names.place}."
            ) from error

    def _key(self) -> str:
        """Return the key, or nothing.

        Raises:
            EngineError: It holds what no key can: the variable is named, the key is not shown.
        """
        key = os.environ.get(self.server.key_variable, "").strip()
        bad = next((character for character in key if not "!" <= character <= "~" or character in "\"'"), None)
        if bad is not None:
            what = NOT_IN_A_KEY.get(bad, "a control character" if bad < " " else "a character that is not of ASCII")
            raise EngineError(
                f"The key in the environment variable {self.server.key_variable} cannot be sent: it holds {what}.",
                hint="Set it again to the key alone.",
            )
        return key

    def _read(self, stream: IO[bytes], headers: email.message.Message, most: int) -> bytes:
        """Return a body, unpacked; one that is too long, or comes too slowly, is given up."""
        unpack = _unpacker(headers.get("Content-Encoding"))
        begun = time.monotonic()
        pieces, length = [], 0
        receive = getattr(stream, "read1", stream.read)  # read() would wait for all of a piece that comes byte by byte
        while piece := receive(PIECE_BYTES):
            if unpack is not None:
                piece = unpack.decompress(piece, most)
            pieces.append(piece)
            length += len(piece)
            if length >= most:
                raise _TransientFailure(f"an answer of more than {most // 2**20} MiB", answered=True)
            if time.monotonic() - begun > self.server.timeout_seconds + length / SLOWEST:
                raise _TransientFailure("an answer that does not end", charged=True)
            interrupt.check()
        return b"".join(pieces)

    def _refusal(self, error: urllib.error.HTTPError, address: str) -> Exception:
        """Return what an HTTP error means."""
        try:
            body = decoded(self._read(error, error.headers, MOST_BYTES))
        except (OSError, HTTPException, zlib.error, _TransientFailure):
            body = ""
        return self._refused(refusal(error.code, body, str(error.reason)), address, _asked_pause(error.headers))

    def _refused(self, said: Refusal, address: str, pause: float = 0.0) -> Exception:
        """Return what a refusal means; a server may repeat the key in its text, which is taken out."""
        said = replace(said, words=self.mask(said.words))
        kind = said.kind
        if kind == "passing":
            return _TransientFailure(str(said), pause)
        has_key = bool(os.environ.get(self.server.key_variable, "").strip())
        message = f"{address} refused the request with {said}."
        hint = said.hint(self.root, self.server.key_variable, has_key, self.names)
        if kind == "server":
            return EngineError(message, hint=hint)
        return RefusedRequestError(message, hint=hint, reason=str(said), unclear=kind == "unclear")


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


def without_system(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation without system turns: their text heads the first user's turn."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if not system:
        return others
    if not others:
        return [Message(role="user", content="\n\n".join(system))]
    first = Message(role=others[0]["role"], content="\n\n".join([*system, others[0]["content"]]))
    return [first, *others[1:]]


@lru_cache(maxsize=8)
def _mask(key: str, variable: str) -> Mask:
    return Mask(key, variable)


def _unpacker(encoding: str | None) -> Any:
    """Return what unpacks a body that the server packed, though it was not asked to; None if it did not."""
    name = (encoding or "identity").strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=47)
    raise _TransientFailure(f"an answer packed with {name[:20]!r}, which was not asked for", answered=True)


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
