"""A judge behind real HTTP that speaks chat completions and batches, counts what it is asked, and fails when told to.

with JudgeServer(by_rule) as server:
    server.faults[3] = Fault("hang")     # the third chat request
    settings = judges.load("openai-compatible-mt-bench-single", (f"endpoint.address={server.address}", "model=any"))
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from tests.servers.chat.server import always, until
from tests.servers.judge.batches import Batches
from tests.servers.judge.replies import Body, Judge, logprobs, prompt_hash

KEY = "sk-test-judge-key-of-no-account"
FaultKind = Literal["429", "500", "400", "hang", "truncated", "garbage", "empty", "no_logprobs", "wrong_key", "drop"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    kind: FaultKind
    retry_after: str | None = None


class JudgeServer:
    """Serves on a free port of this machine until the context ends.

    Attributes:
        faults: what goes wrong, by the number of the chat request, from 1.
        numbers: chat requests so far, those that failed included.
        answered: how often each prompt was answered and paid for, batches included.
        prompt_tokens, completion_tokens: what the client owes for.
        under_way, most_at_once: how many requests are under way together, and were at the most.
        delay: seconds that every chat answer takes.
        ready: every chat answer waits, for a minute at most, until this is true.
        refuses: returns status and error document for the requests that shall be refused, else None.
        edit: changes every document that is answered, its model or usage for example.
        batches: the Batch API's side.
        has_batches: whether there is one.
    """

    def __init__(self, judge: Judge, *, key: str | None = KEY, logprobs: bool = True, counts: bool = True) -> None:
        self.judge = judge
        self.key = key
        self.logprobs = logprobs
        self.counts = counts
        self.faults: dict[int, Fault] = {}
        self.numbers = 0
        self.answered: Counter[str] = Counter()
        self.bodies: list[Body] = []
        self.prompt_tokens = self.completion_tokens = 0
        self.most_at_once = self.under_way = 0
        self.delay = 0.0
        self.ready: Callable[[], bool] = always
        self.refuses: Callable[[Body], tuple[int, dict[str, Any]] | None] = lambda body: None
        self.edit: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
        self._ended = threading.Event()
        self.batches = Batches(self._complete)
        self.has_batches = True
        self._lock = threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def cost(self, input_price: float, output_price: float) -> float:
        """Return what the client owes in US dollars, for prices per million tokens."""
        return (self.prompt_tokens * input_price + self.completion_tokens * output_price) / 1e6

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ready = always
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                server._serve(self, "GET", b"")

            def do_POST(self) -> None:
                server._serve(self, "POST", self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler, method: str, payload: bytes) -> None:
        path = handler.path.removeprefix("/v1")
        told = handler.headers.get("Authorization") or handler.headers.get("api-key")
        if self.key is not None and told not in (f"Bearer {self.key}", self.key):
            _refuse(handler, 401, f"Incorrect API key provided: {told}.")
        elif path.partition("?")[0] == "/chat/completions":
            self._chat(handler, json.loads(payload))
        elif self.has_batches:
            with self._lock:
                status, content = self.batches.answer(method, path, payload)
            _send(handler, status, content.encode())
        else:
            _refuse(handler, 404, f"no {path}")

    def _chat(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.numbers += 1
            self.bodies.append(body)
            fault = self.faults.pop(self.numbers, None)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        time.sleep(self.delay)
        until(lambda: self.ready())
        with self._lock:  # before the answer, after which the client may send the next request at once
            self.under_way -= 1
        self._reply(handler, body, fault)

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind in ("429", "500", "400"):
            _refuse(handler, int(kind), "so it was told", {"Retry-After": fault.retry_after})
            return
        refused = self.refuses(body)
        if refused is not None:
            _send(handler, refused[0], json.dumps(refused[1]).encode())
            return
        if kind == "garbage":
            _send(handler, 200, b"<html>busy</html>")
            return
        if kind == "wrong_key":
            _refuse(handler, 401, f"Incorrect API key provided: {handler.headers.get('Authorization')}.")
            return
        try:
            with self._lock:
                document = self._complete(body, empty=kind == "empty", logprobs=kind != "no_logprobs")
        except KeyError as error:
            _refuse(handler, 400, str(error))
            return
        if fault is not None and kind == "hang":
            self._ended.wait()
        elif kind == "drop":
            handler.close_connection = True
            return
        content = json.dumps(self.edit(document)).encode()
        if kind == "truncated":
            content = content[: len(content) // 2]
        _send(handler, 200, content)

    def _complete(self, body: Body, *, empty: bool = False, logprobs: bool = True) -> dict[str, Any]:
        """Return the answer as OpenAI would, and put it on the bill; four characters are a token."""
        reply = self.judge(body)
        text = "" if empty else reply.text
        prompt_tokens = sum(len(message["content"]) for message in body["messages"]) // 4 + 3
        completion_tokens = min(body["max_tokens"], len(text) // 4 + 1)
        self.answered[prompt_hash(body)] += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reply.finish_reason,
        }
        if reply.reasoning:
            choice["message"]["reasoning_content"] = reply.reasoning
        if body.get("logprobs") and logprobs and self.logprobs and reply.probabilities and not empty:
            choice["logprobs"] = _logprobs(reply, body["top_logprobs"])
        document = {"object": "chat.completion", "model": f"{body['model']}-0001", "choices": [choice]}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return document | {"usage": usage} if self.counts else document


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


_logprobs = logprobs


def _refuse(
    handler: BaseHTTPRequestHandler, status: int, message: str, headers: dict[str, str | None] | None = None
) -> None:
    _send(handler, status, json.dumps({"error": {"message": message}}).encode(), headers)


def _send(
    handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str | None] | None = None
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
