"""A small real HTTP server that speaks OpenAI's chat completions, says what it is told to, and fails when asked.

    with ChatServer(lambda body: "9. Why is the sky blue?") as server:
        ChatClient(Server(address=server.address))
        server.fail(Fault(status=429, retry_after="0"), times=2)

It checks the key, counts how many requests are under way at once, and keeps the bodies it received.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "sk-test-key-of-no-account"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request: a status, a body that is no JSON, or a connection that is dropped."""

    status: int = 0
    message: str = "try later"
    retry_after: str | None = None
    body: str | None = None
    drop: bool = False
    location: str | None = None
    drip_seconds: float = 0.0
    """Pause after each byte of the body."""
    packed: bool = False
    """Whether the body goes out with gzip, though nobody asked for that."""


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]


def always() -> bool:
    """Nothing is waited for."""
    return True


def until(ready: Callable[[], bool]) -> None:
    """Return when `ready()` is true, or a minute has passed."""
    end = time.monotonic() + 60
    while not ready() and time.monotonic() < end:
        time.sleep(0.01)


class ChatServer:
    """Serves on a free port of this machine until the context ends.

    Attributes:
        received: all requests so far, those that failed included.
        most_at_once: how many requests were under way together at the most.
        delay: seconds that every answer takes.
        ready: every answer waits, for a minute at most, until this is true.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], str], *, key: str | None = KEY) -> None:
        self.answer = answer
        self.key = key
        self.received: list[Received] = []
        self.most_at_once = 0
        self.delay = 0.0
        self.ready: Callable[[], bool] = always
        self._faults: list[Fault] = []
        self._under_way = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def fail(self, fault: Fault, times: int = 1) -> None:
        """Let the next requests go wrong."""
        self._faults += [fault] * times

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ready = always
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.received.append(Received(body, dict(self.headers)))
                    fault = server._faults.pop(0) if server._faults else None
                    server._under_way += 1
                    server.most_at_once = max(server.most_at_once, server._under_way)
                time.sleep(server.delay)
                until(lambda: server.ready())
                with server._lock:  # before the answer, after which the client may send the next request at once
                    server._under_way -= 1
                server._reply(self, body, fault)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: Fault | None) -> None:
        if fault is not None and fault.drop:
            handler.close_connection = True
            return
        if fault is not None:
            content = json.dumps({"error": {"message": fault.message}}) if fault.body is None else fault.body
            extra = {"Retry-After": fault.retry_after, "Location": fault.location}
            if fault.drip_seconds:
                _drip(handler, content, fault.drip_seconds)
                return
            extra["Content-Encoding"] = "gzip" if fault.packed else None
            _send(handler, fault.status or 200, gzip.compress(content.encode()) if fault.packed else content, extra)
        elif self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            told = handler.headers.get("Authorization")
            _send(handler, 401, json.dumps({"error": {"message": f"Incorrect API key provided: {told}."}}))
        elif handler.path != "/v1/chat/completions":
            _send(handler, 404, json.dumps({"error": {"message": f"no {handler.path}"}}))
        else:
            _send(handler, 200, json.dumps(_completion(self.answer(body), body)))


def _drip(handler: BaseHTTPRequestHandler, content: str, pause: float) -> None:
    """Send a body byte by byte, for as long as somebody listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        for letter in content:
            handler.wfile.write(letter.encode())
            time.sleep(pause)


def _completion(text: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer as OpenAI would; a token is a word with the space before it."""
    words = text.split(" ")
    limit = body["max_tokens"]
    return {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join(words[:limit])},
                "finish_reason": "length" if len(words) > limit else "stop",
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": min(len(words), limit)},
    }


def _send(
    handler: BaseHTTPRequestHandler, status: int, content: str | bytes, headers: dict[str, str | None] | None = None
) -> None:
    payload = content.encode() if isinstance(content, str) else content
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(payload)))
    for name, value in (headers or {}).items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(payload)
