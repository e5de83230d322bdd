"""The chat test server, with completions as vLLM has them: token ids in and out, computed by a real tiny model."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from gshf_release.errors import EngineError
from gshf_release.run.context import silent
from gshf_release.sampling import Decoding, Request, TransformersEngine
from tests.servers.chat.server import KEY, ChatServer, Fault, _send


class CompletionsServer(ChatServer):
    """Serves a checkpoint folder under its path.

    Attributes:
        changes: what it puts into every answer's choice instead of the truth; a value of None leaves the key out.
        models: what it says it serves.
    """

    def __init__(self, checkpoint: Path, *, key: str | None = KEY) -> None:
        super().__init__(lambda body: "", key=key)
        self.engine = TransformersEngine(checkpoint, precision="fp32", device="cpu", batch=1)
        self.changes: dict[str, Any] = {}
        self.models: list[dict[str, Any]] = [{"id": "tiny", "root": str(checkpoint), "max_model_len": 256}]
        self._computing = threading.Lock()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server, base = self, super()._handler()

        class Handler(base):  # type: ignore[valid-type,misc]
            def do_GET(self) -> None:  # noqa: N802
                _send(self, 200, json.dumps({"data": server.models}))

        return Handler

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: Fault | None) -> None:
        allowed = self.key is None or handler.headers.get("Authorization") == f"Bearer {self.key}"
        if fault is not None or handler.path != "/v1/completions" or not allowed:
            super()._reply(handler, body, fault)
            return
        if body["stop_token_ids"] != self.engine.stops or body["model"] != self.models[0]["id"]:
            _send(handler, 400, json.dumps({"error": {"message": "other end tokens or model than served"}}))
            return
        decoding = Decoding(body["temperature"], body["max_tokens"], body["top_p"], body["top_k"])
        try:
            with self._computing:
                (found,) = self.engine.generate([Request(body["prompt"], decoding, body["seed"])], silent)
        except EngineError as error:
            _send(handler, 400, json.dumps({"error": {"message": str(error)}}))
            return
        choice: dict[str, Any] = {"text": "", "finish_reason": found.finish_reason, "prompt_token_ids": body["prompt"]}
        choice |= {"token_ids": found.ids} | self.changes
        kept = {name: value for name, value in choice.items() if value is not None}
        _send(handler, 200, json.dumps({"choices": [kept]}))
