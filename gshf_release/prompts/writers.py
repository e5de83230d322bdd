"""Ask a model for AI prompts, behind one protocol: one in this process, or one at a chat-completions server.

What they said is kept in a record, so that a killed command goes on without asking again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gshf_release.data.hashing import sha256_json, sha256_tree, tree
from gshf_release.data.records import FinishReason, Message
from gshf_release.errors import RunError
from gshf_release.models.chat_tokenizer import render, response_text
from gshf_release.models.checkpoints import load_tokenizer, locate
from gshf_release.recipe import Augmentation, Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.sampling.engines import open_engine
from gshf_release.sampling.protocol import Decoding, Progress, Request, SamplingEngine
from gshf_release.serving.openai_client import ChatClient, ChatRequest
from gshf_release.serving.openai_replies import ChatAnswer

SERVED = "served:"


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One list wanted."""

    text: str
    """The request, with the beginning of the list."""
    first: int
    """The number of the list's next entry."""
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Records what the writer wrote."""

    text: str
    finish_reason: FinishReason
    tokens: int
    """Written tokens; 0 if the server does not count them."""


Heard = Callable[[list[tuple[int, Answer]]], None]


class Writer(Protocol):
    """Goes on with numbered lists."""

    identity: str
    """What the answers depend on beside the request."""
    whole_rounds: bool
    """Answers depend, in the last bits of their logits, on what they are computed with: a round is asked whole or not."""

    def write(self, asks: Sequence[ListRequest], heard: Heard, progress: Progress) -> list[Answer]:
        """Return one answer per request; `heard([(index, answer), ...])` is called as soon as some are there."""
        ...


class EngineWriter:
    """A model in this process. It begins its answer with the list's next number, which keeps small models to the list."""

    whole_rounds = True

    def __init__(
        self, engine: SamplingEngine, stops: Sequence[int], tokenizer: Any, identity: str, settings: Augmentation
    ) -> None:
        """Wrap an engine.

        Args:
            engine: Samples.
            stops: Ids that end an answer.
            tokenizer: The engine's.
            identity: Content hash of the model.
            settings: The recipe's section.
        """
        self.engine = engine
        self.stops = stops
        self.tokenizer = tokenizer
        self.identity = identity
        self.decoding = Decoding(settings.temperature, settings.max_new_tokens, settings.top_p)

    def write(self, asks: Sequence[ListRequest], heard: Heard, progress: Progress) -> list[Answer]:
        """Return one answer per request."""
        requests = [Request(self._prompt_ids(ask), self.decoding, ask.seed) for ask in asks]
        answers = [
            Answer(
                f"{ask.first}. {response_text(self.tokenizer, completion.ids, self.stops)}",
                completion.finish_reason,
                len(completion.ids),
            )
            for ask, completion in zip(asks, self.engine.generate(requests, progress), strict=True)
        ]
        heard(list(enumerate(answers)))
        return answers

    def _prompt_ids(self, ask: ListRequest) -> list[int]:
        ids = render(self.tokenizer, [Message(role="user", content=ask.text)])
        return [*ids, *self.tokenizer.encode(f"{ask.first}.", add_special_tokens=False)]


class ServerWriter:
    """A model at the profile's server."""

    whole_rounds = False

    def __init__(self, client: ChatClient, model: str, settings: Augmentation) -> None:
        self.client = client
        self.model = model
        self.settings = settings
        self.identity = f"{SERVED}{model}"

    def write(self, asks: Sequence[ListRequest], heard: Heard, progress: Progress) -> list[Answer]:
        """Return one answer per request."""
        done = 0

        def finished(index: int, answer: ChatAnswer) -> None:
            nonlocal done
            done += 1
            heard([(index, _answer(answer))])
            progress(done, len(asks), "requests")

        return [_answer(answer) for answer in self.client.complete_all([self._request(ask) for ask in asks], finished)]

    def _request(self, ask: ListRequest) -> ChatRequest:
        return ChatRequest(
            model=self.model,
            messages=[Message(role="user", content=ask.text)],
            temperature=self.settings.temperature,
            max_tokens=self.settings.max_new_tokens,
            top_p=self.settings.top_p,
            seed=ask.seed % 2**31,  # servers take 32 bits
        )


def _answer(answer: ChatAnswer) -> Answer:
    return Answer(answer.text, "length" if answer.cut else "stop", answer.completion_tokens)


def make_writer(recipe: Recipe, profile: Profile) -> Writer:
    """Return the writer that a recipe names.

    Raises:
        CheckpointError: Its model is not here.
        EngineError: It is served, and the profile names no server.
    """
    settings = recipe.prompts.augmentation
    model, revision, sha256 = writer_model(recipe)
    if model.startswith(SERVED):
        return ServerWriter(ChatClient(profile.server), model.removeprefix(SERVED), settings)
    path = locate(model, revision=revision, sha256=sha256)
    engine = open_engine(path, profile)
    return EngineWriter(engine, engine.stops, load_tokenizer(path), sha256_tree(tree(path)), settings)


def writer_model(recipe: Recipe) -> tuple[str, str | None, str | None]:
    """Return the writer's model, revision and sha256; `base` stands for the run's base model."""
    chosen = recipe.base if recipe.prompts.augmentation.writer.model == "base" else recipe.prompts.augmentation.writer
    return chosen.model, chosen.revision, chosen.sha256


class WriterRecord:
    """Records what a writer said, one JSON line an answer, found again by everything the answer depends on.

    The file only grows, and a line that a kill cut is passed over; so it serves a command that goes on, and one whose filters
    or target changed. A served model may answer the same request otherwise; the record makes a killed and an unbroken run end
    alike.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
        content = path.read_bytes() if path.is_file() else b""
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                self._answers[key] = Answer(**entry)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def find(self, key: str) -> Answer | None:
        """Return the answer to a request, if it is known."""
        return self._answers.get(key)

    def add(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Append answers; they are on the disk when this returns."""
        lines = "".join(json.dumps({"key": key, **asdict(answer)}) + "\n" for key, answer in answers)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("ab") as stream:
                stream.write((b"\n" if self._torn else b"") + lines.encode("ascii"))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunError(f"{self.path} could not be written: {error.strerror}.") from error
        self._torn = False
        self._answers.update(answers)


def request_key(writer: Writer, ask: ListRequest, settings: Augmentation) -> str:
    """Return the hash of all that an answer depends on."""
    return sha256_json(
        {
            "writer": writer.identity,
            "text": ask.text,
            "first": ask.first,
            "seed": ask.seed,
            "decoding": [settings.temperature, settings.top_p, settings.max_new_tokens],
        }
    )


def ask_once(
    writer: Writer, asks: Sequence[ListRequest], settings: Augmentation, record: WriterRecord, progress: Progress
) -> tuple[list[Answer], list[int]]:
    """Return the answers to a round of requests, from the record where it has them, and the indices of those asked for now."""
    keys = [request_key(writer, ask, settings) for ask in asks]
    missing = [index for index, key in enumerate(keys) if record.find(key) is None]
    if missing and writer.whole_rounds:
        missing = list(range(len(asks)))
    if missing:
        writer.write(
            [asks[index] for index in missing],
            lambda heard: record.add([(keys[missing[index]], answer) for index, answer in heard]),
            progress,
        )
    found = [record.find(key) for key in keys]
    return [answer for answer in found if answer is not None], missing
