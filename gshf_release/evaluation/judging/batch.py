"""Judge through a Batch API: half the price at some servers, and no limit of rate; the answers take up to a day.

The requests go up as one file; the server works on it; its answers come down as another. Which batch holds which judgments is
kept beside the cache, so that a command that was killed waits for its batch instead of sending it twice:

    CACHE/batches/<digest>.json      written before the batch is made, and again with its id; removed when its answers are kept

A batch that was made but whose id was lost is recognised at the server by the digest in its metadata. A batch that answered
nothing ends the judging with the server's words; what failed in one that answered some is asked for one by one, which is said.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gshf_release.data import locks
from gshf_release.data.hashing import sha256_json
from gshf_release.data.records import Message
from gshf_release.errors import EngineError, NetworkError
from gshf_release.evaluation.judging.cache import Judgment, make_private, open_private, refused_judgment, write_private
from gshf_release.evaluation.judging.session import JudgeSession, JudgmentRequest
from gshf_release.run import interrupt
from gshf_release.run.directory import read_json
from gshf_release.serving.openai_refusals import Refusal, document_refusal
from gshf_release.serving.openai_replies import UnreadableReply, read_completion

MOST_REQUESTS = 10_000
"""In one batch; OpenAI takes 50,000 or 200 MB, of which prompts of 10,000 characters would need more."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
FIRST_POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 60.0
TAG = "gshf_release"
BOUNDARY = "gshf-release-0f4e1c1b7d"
"""Of the upload's parts; JSON with escaped text never holds it at the start of a line."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it is kept on disk."""

    digest: str
    """sha256 of the keys of its judgments."""
    keys: tuple[str, ...]
    address: str
    id: str | None
    """The server's; None until it is known."""


def judge_in_batches(session: JudgeSession, missing: Sequence[JudgmentRequest]) -> dict[str, Judgment]:
    """Return the judgments that batches gave; requests that failed alone in a batch are left to the ordinary way.

    Raises:
        EngineError: The server has no Batch API, refuses the batch or all that is in it, or its worst case exceeds the limit.
        NetworkError: The server gave up, or ended the batch early.
        Interrupted: The process was asked to stop; the same command waits for the same batch.
    """
    if session.client.server.api_version is not None:
        raise EngineError("Batches are not made at Azure's addresses.", hint="Judge without --batch.")
    folder = session.cache.folder / "batches"
    batches = BatchFolder(folder, session)
    with _alone(folder):
        batches.find_lost()
        under_way = {key for batch in batches.all() for key in batch.keys}
        fresh = [each for each in missing if each.key not in under_way and not session.too_long(each)]
        worst = _reserve(session, fresh)
        try:
            for start in range(0, len(fresh), MOST_REQUESTS):
                batches.send(fresh[start : start + MOST_REQUESTS])
        except BaseException:
            session.budget.settle(worst, 0.0)
            raise
    prompts = {each.key: each.request.messages for each in missing}
    received: dict[str, Judgment] = {}
    try:
        for batch in batches.all():
            if not prompts.keys().isdisjoint(batch.keys):
                received |= batches.finish(batch, prompts)
    finally:
        session.budget.settle(worst, 0.0)
    return {key: received[key] for key in prompts if key in received}


class BatchFolder:
    """The batches of a cache, and the server that works on them. One process at a time makes them; all may wait for them."""

    def __init__(self, folder: Path, session: JudgeSession) -> None:
        self.folder = folder
        self.session = session

    def all(self) -> list[Batch]:
        """Return what is under way at this judge's address."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                entry = read_json(path)
                found.append(Batch(entry["digest"], tuple(entry["keys"]), entry["address"], entry["id"]))
        return [batch for batch in found if batch.address == self.session.client.root]

    def send(self, wanted: Sequence[JudgmentRequest]) -> None:
        """Make a batch of requests. It is on disk before it is at the server."""
        keys = tuple(each.key for each in wanted)
        since = self.session.since
        digest = sha256_json([sorted(keys), since] if since else sorted(keys))
        batch = Batch(digest, keys, self.session.client.root, None)
        self._keep(batch)
        try:
            self._make(batch, wanted)
        except EngineError:
            self._path(batch).unlink(missing_ok=True)  # the server has refused it: there is nothing to wait for
            raise

    def find_lost(self) -> None:
        """Look at the server for batches whose id was not written down; those that it has not were never made."""
        for batch in self.all():
            if batch.id is None:
                found = self._at_server(batch)
                if found is None:
                    self._path(batch).unlink(missing_ok=True)
                else:
                    self._keep(replace(batch, id=_text(found, "id")))

    def finish(self, batch: Batch, prompts: Mapping[str, Sequence[Message]]) -> dict[str, Judgment]:
        """Wait for a batch, return and keep its answers, and forget it.

        Args:
            batch: One that was sent.
            prompts: Those that are waited for, by the keys of their judgments.

        Raises:
            EngineError: All of its requests failed.
        """
        document = self._wait(batch)
        received: dict[str, Judgment] = {}
        refusals: list[Refusal] = []
        for name in ("output_file_id", "error_file_id"):
            if isinstance(document.get(name), str) and document[name]:
                content = self.session.client.send("GET", f"/files/{document[name]}/content")
                self._receive(content, batch, prompts, received, refusals)
        self._path(batch).unlink(missing_ok=True)
        if document["status"] != "completed":
            raise self._ended(batch, document)
        self._tell_failures(batch, received, refusals)
        return received

    def _ended(self, batch: Batch, document: dict[str, Any]) -> Exception:
        """Return the error of a batch that did not come to its end."""
        errors = document.get("errors")
        found = errors.get("data", errors) if isinstance(errors, dict) else errors
        words = self.session.client.mask(document_refusal(200, found).words)
        error = EngineError if document["status"] == "failed" else NetworkError
        return error(
            f"The batch {batch.id} at {batch.address} {document['status']}{f': {words}' if words else ''}.",
            hint="What it answered is kept; run the same command again for the rest, or without --batch.",
        )

    def _tell_failures(self, batch: Batch, received: dict[str, Judgment], refusals: list[Refusal]) -> None:
        """Say how many requests of a batch failed and why; none answered is an error."""
        failed = len(batch.keys) - len(received)
        if not failed:
            return
        counts = Counter(str(refusal) for refusal in refusals)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.most_common(3)) or "no reason given"
        if not received:
            raise EngineError(
                f"All {failed} requests of the batch {batch.id} at {batch.address} failed: {reasons}.",
                hint="None of them was asked for one by one, at the full price; judge without --batch for that.",
            )
        self.session.say(f"{failed} of {len(batch.keys)} requests of the batch {batch.id} failed: {reasons}.")

    def _make(self, batch: Batch, wanted: Sequence[JudgmentRequest]) -> None:
        """Upload the requests and start the batch; a start of unknown outcome is looked for before it is tried again."""
        lines = [
            json.dumps(
                {"custom_id": each.key, "method": "POST", "url": "/v1/chat/completions", "body": each.request.as_json()}
            )
            for each in wanted
        ]
        client = self.session.client
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        uploaded = _document(client.send("POST", "/files", _upload("\n".join(lines) + "\n"), kind))
        body = {
            "input_file_id": _text(uploaded, "id"),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {TAG: batch.digest},
        }
        for attempt in range(client.server.attempts):
            found = self._at_server(batch) if attempt else None
            if found is None:
                try:
                    found = _document(client.send("POST", "/batches", json.dumps(body).encode(), attempts=1))
                except NetworkError:
                    if attempt == client.server.attempts - 1:
                        raise
                    interrupt.sleep(min(LONGEST_POLL_SECONDS, FIRST_POLL_SECONDS * 2**attempt))
                    continue
            self._keep(replace(batch, id=_text(found, "id")))
            self.session.say(
                f"Batch {found['id']}: {len(wanted)} judgments; the same command waits for it after a stop."
            )
            return

    def _at_server(self, batch: Batch) -> dict[str, Any] | None:
        """Return the server's batch with this digest."""
        listed = _document(self.session.client.send("GET", "/batches?limit=100")).get("data")
        made = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        tags = [each["metadata"] if isinstance(each.get("metadata"), dict) else {} for each in made]
        return next((each for each, tag in zip(made, tags, strict=True) if tag.get(TAG) == batch.digest), None)

    def _wait(self, batch: Batch) -> dict[str, Any]:
        pause = FIRST_POLL_SECONDS
        while True:
            document = _document(self.session.client.send("GET", f"/batches/{batch.id}"))
            if _text(document, "status") in ENDED:
                return document
            interrupt.sleep(pause)
            pause = min(LONGEST_POLL_SECONDS, 1.5 * pause)

    def _receive(
        self,
        content: bytes,
        batch: Batch,
        prompts: Mapping[str, Sequence[Message]],
        received: dict[str, Judgment],
        refusals: list[Refusal],
    ) -> None:
        """Add the answers and refusals of an output file, those that nobody waits for any more too: they are paid for."""
        session = self.session
        for line in content.split(b"\n"):
            key, document, refused = _result(line)
            if key not in batch.keys:
                continue
            if refused is None:
                try:
                    answer = read_completion(document, session.client.mask)
                except UnreadableReply as reply:
                    refused = reply.refusal or Refusal(200, str(reply))
                else:
                    received[key] = session.receive(key, prompts.get(key, ()), answer, session.settings.price.batch)
                    continue
            refused = replace(refused, words=session.client.mask(refused.words))
            if refused.kind == "prompt":
                received[key] = refused_judgment(str(refused))
            else:
                refusals.append(refused)

    def _keep(self, batch: Batch) -> None:
        content = {"digest": batch.digest, "keys": list(batch.keys), "address": batch.address, "id": batch.id}
        write_private(self._path(batch), content)

    def _path(self, batch: Batch) -> Path:
        return self.folder / f"{batch.digest}.json"


def _reserve(session: JudgeSession, fresh: Sequence[JudgmentRequest]) -> float:
    """Set the worst case of new batches aside: once sent they cannot be watched request by request."""
    share = session.settings.price.batch
    worst = sum(session.budget.worst(each.request.messages, share) for each in fresh)
    left = session.budget.left
    if left is not None and worst > left:
        raise EngineError(
            f"A batch of {len(fresh)} judgments may cost ${worst:.4f} at the worst; ${left:.4f} of --max-cost is left.",
            hint="Raise --max-cost, or judge without --batch: then the limit is watched request by request.",
        )
    session.budget.reserve(worst)
    return worst


def _upload(lines: str) -> bytes:
    """Return the body of an upload as multipart/form-data (RFC 7578)."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n',
        f"Content-Type: application/jsonl\r\n\r\n{lines}\r\n--{BOUNDARY}--\r\n",
    ]
    return "".join(parts).encode()


def _document(body: bytes) -> dict[str, Any]:
    """Return the object in an answer.

    Raises:
        NetworkError: It is none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NetworkError(
            "The Batch API gave an answer that is no JSON.", hint="Run the same command again."
        ) from error
    if not isinstance(document, dict):
        raise NetworkError("The Batch API gave an answer that is no object.", hint="Run the same command again.")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    """Return a text that the server must give.

    Raises:
        NetworkError: It does not.
    """
    value = document.get(name)
    if not isinstance(value, str):
        raise NetworkError(f"The Batch API gave an answer without `{name}`.", hint="Run the same command again.")
    return value


def _result(line: bytes) -> tuple[str, Any, Refusal | None]:
    """Return the key of a result's line, the completion in it, and the refusal if it is one."""
    try:
        entry = json.loads(line)
        key = entry["custom_id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "", None, None
    response = entry.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code", 200) if isinstance(response, dict) else 0
    if entry.get("error") and not body:
        return str(key), None, document_refusal(200, entry)
    if status != 200:
        return str(key), None, document_refusal(status if isinstance(status, int) else 500, body)
    return str(key), body, None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the right to make batches; a second process waits, and then sees what the first has made."""
    make_private(folder)
    with open_private(folder / "lock", "a") as stream:
        while not locks.take(stream):
            interrupt.sleep(interrupt.POLL_SECONDS)
        yield
