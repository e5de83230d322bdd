"""What fetching says when something other than the Hub answers, over real HTTP."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from gshf_release.errors import NetworkError
from gshf_release.models import checkpoints


class Answering(BaseHTTPRequestHandler):
    """A server that is not the Hub: it answers every request with the same, or hangs up."""

    answer: ClassVar[tuple[int, str, bytes] | None] = None

    def do_GET(self) -> None:
        if self.answer is None:
            self.close_connection = True
            return
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


PAGE = b"<html><body>Please log in to this network.</body></html>"


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (None, "The Hub could not be reached for 'owner/name': Server disconnected", "Check the network"),
        ((200, "text/html", PAGE), "What answered for 'owner/name' is not the Hub", "a login page|proxy"),
        ((200, "application/json", b"{}"), "What answered for 'owner/name' is not the Hub", "HF_ENDPOINT"),
        (
            (401, "text/html", PAGE),
            "The Hub refused 'owner/name' with status 401: no token",
            "gated model needs a token",
        ),
        ((403, "text/html", PAGE), "The Hub refused 'owner/name' with status 403", "hf auth login"),
        ((500, "text/html", PAGE), "The Hub answered 500 for 'owner/name'", "Run it again"),
    ],
    ids=["hang-up", "html", "other-json", "401", "403", "500"],
)
def test_a_server_that_is_not_the_hub_is_one_line(
    answer: tuple[int, str, bytes] | None, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as client

    monkeypatch.setattr(Answering, "answer", answer)
    monkeypatch.setattr(client, "HF_HUB_CACHE", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(client, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(NetworkError, match=message) as caught:
                checkpoints.fetch("owner/name")
        finally:
            server.shutdown()
    assert re.search(hint, caught.value.hint)
    assert "\n" not in str(caught.value)
