"""The server's side of the Batch API: files go in, batches are worked off when they are looked at often enough."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any


class Batches:
    """Files and batches.

    Attributes:
        made: the batches by id, as the server shows them.
        looks: how often a batch must be looked at before it is completed.
        broken: requests (by position, from 0) that fail inside a batch.
        forgets: whether the answer to the next making of a batch is lost.
        ends_as: the status in which batches end.
    """

    def __init__(self, complete: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.complete = complete
        self.files: dict[str, str] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.looks = 2
        self.broken: set[int] = set()
        self.forgets = 0
        self.ends_as = "completed"
        self._looked: dict[str, int] = {}

    def answer(self, method: str, path: str, payload: bytes) -> tuple[int, str]:
        """Return the status and body for a path below the address."""
        path = path.partition("?")[0]
        if (method, path) == ("POST", "/files"):
            return 200, json.dumps({"id": self._add(_file_part(payload)), "object": "file", "purpose": "batch"})
        if found := re.fullmatch(r"/files/([\w-]+)/content", path):
            return 200, self.files[found[1]]
        if (method, path) == ("POST", "/batches"):
            return self._make(json.loads(payload))
        if path == "/batches":
            return 200, json.dumps({"object": "list", "data": list(self.made.values())[::-1]})
        if found := re.fullmatch(r"/batches/([\w-]+)", path):
            return 200, json.dumps(self._look(found[1]))
        return 404, json.dumps({"error": {"message": f"no {method} {path}"}})

    def _make(self, body: dict[str, Any]) -> tuple[int, str]:
        assert body["endpoint"] == "/v1/chat/completions"
        name = f"batch-{len(self.made) + 1}"
        self.made[name] = {"id": name, "status": "in_progress", **body}
        if self.forgets:
            self.forgets -= 1
            return 500, json.dumps({"error": {"message": "the answer was lost"}})
        return 200, json.dumps(self.made[name])

    def _look(self, name: str) -> dict[str, Any]:
        batch = self.made[name]
        self._looked[name] = self._looked.get(name, 0) + 1
        if self._looked[name] >= self.looks and batch["status"] == "in_progress":
            self._work_off(batch)
        return batch

    def _work_off(self, batch: dict[str, Any]) -> None:
        good, bad = [], []
        if self.ends_as != "failed":
            for number, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
                request = json.loads(line)
                if number in self.broken:
                    response = {"status_code": 500, "body": {"error": {"message": "broken"}}}
                    bad.append(json.dumps({"custom_id": request["custom_id"], "response": response, "error": None}))
                else:
                    response = {"status_code": 200, "body": self.complete(request["body"])}
                    good.append(json.dumps({"custom_id": request["custom_id"], "response": response, "error": None}))
            batch["output_file_id"] = self._add("\n".join(good) + "\n")
            batch["error_file_id"] = self._add("\n".join(bad) + "\n") if bad else None
        else:
            batch["errors"] = {"data": [{"message": "the file is not what it should be"}]}
        batch["status"] = self.ends_as

    def _add(self, content: str) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name


def _file_part(payload: bytes) -> str:
    """Return the part of a multipart body that holds the file."""
    boundary = payload.partition(b"\r\n")[0]
    part = next(part for part in payload.split(boundary) if b'name="file"' in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()
