"""The engine of OpenAI-compatible servers: the suite of all engines over HTTP, and what only a server can do wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import AnswerError, EngineError, NetworkError
from gshf_release.recipe.profile import Profile, Server
from gshf_release.run.context import silent
from gshf_release.sampling import ENGINES, Completion, OpenAIEngine
from gshf_release.serving import openai_client
from tests.sampling.conformance import EngineConformance, requests
from tests.servers.chat import Fault
from tests.servers.chat.server import KEY, always
from tests.servers.completions import CompletionsServer


def opened(server: CompletionsServer, checkpoint: Path, **settings: Any) -> OpenAIEngine:
    return OpenAIEngine(checkpoint, Server(address=server.address, key_variable="OWN_SERVER_KEY", **settings))


class TestOpenAI(EngineConformance):
    draws = 300

    @pytest.fixture(scope="class")
    def engine(self, ending_folder: Path) -> Iterator[OpenAIEngine]:
        with CompletionsServer(ending_folder, key=None) as server:
            yield opened(server, ending_folder)


@pytest.fixture(scope="module")
def running(ending_folder: Path) -> Iterator[CompletionsServer]:
    with CompletionsServer(ending_folder) as server:
        yield server


@pytest.fixture
def server(running: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CompletionsServer]:
    monkeypatch.setenv("OWN_SERVER_KEY", KEY)
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 0.01)
    running.received.clear()
    running.most_at_once = 0
    models = list(running.models)
    yield running
    running.changes, running.models, running.delay, running.ready = {}, models, 0.0, always


def test_a_profile_opens_it(server: CompletionsServer, ending_folder: Path) -> None:
    profile = Profile(engine="openai", server=Server(address=server.address, key_variable="OWN_SERVER_KEY"))
    engine = ENGINES[profile.engine](ending_folder, profile)
    assert len(engine.generate(requests(2), silent)) == 2


def test_failures_that_pass_are_tried_again_and_change_no_response(
    server: CompletionsServer, ending_folder: Path
) -> None:
    engine = opened(server, ending_folder)
    expected = engine.generate(requests(4), silent)
    server.fail(Fault(status=429, retry_after="0"))
    server.fail(Fault(status=503))
    server.fail(Fault(drop=True))
    assert engine.generate(requests(4), silent) == expected
    assert len(server.received) == 4 + 4 + 3


def test_a_server_that_keeps_failing_is_given_up(server: CompletionsServer, ending_folder: Path) -> None:
    engine = opened(server, ending_folder, attempts=2)
    server.fail(Fault(status=500), times=2)
    with pytest.raises(NetworkError, match="failed 2 times"):
        engine.generate(requests(1), silent)


def test_no_more_requests_are_under_way_than_allowed(server: CompletionsServer, ending_folder: Path) -> None:
    server.delay = 0.05
    server.ready = lambda: server.most_at_once >= 3
    opened(server, ending_folder, concurrent_requests=3).generate(requests(9, limit=2), silent)
    assert server.most_at_once == 3


def test_a_refused_key_stands_in_no_message(
    server: CompletionsServer, ending_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_SERVER_KEY", "sk-wrong-and-secret")
    with pytest.raises(EngineError, match="HTTP 401") as caught:
        opened(server, ending_folder).generate(requests(1), silent)
    assert "sk-wrong-and-secret" not in str(caught.value)


def test_another_checkpoint_than_the_servers_is_refused(server: CompletionsServer, ending_folder: Path) -> None:
    server.models = [{"id": "base", "root": "/somewhere/else"}]
    with pytest.raises(EngineError, match=r"does not serve .*; it serves base"):
        opened(server, ending_folder)


def test_text_without_token_ids_is_refused(server: CompletionsServer, ending_folder: Path) -> None:
    server.changes = {"token_ids": None, "text": "so it is"}
    with pytest.raises(EngineError, match="gives no token ids"):
        opened(server, ending_folder).generate(requests(1), silent)


def test_a_prompt_that_was_read_as_other_ids_is_refused(server: CompletionsServer, ending_folder: Path) -> None:
    server.changes = {"prompt_token_ids": [1, 3, 40]}
    with pytest.raises(AnswerError, match="other token ids than it was sent"):
        opened(server, ending_folder).generate(requests(1), silent)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([40, 41], "stop"),
        ([40, 41], "length"),
        ([], "stop"),
        ([2, 40, 2], "stop"),
        ([40, 2], None),
        ([40] * 11, "length"),
    ],
    ids=["stop without end token", "length before the limit", "nothing", "end token inside", "no reason", "too long"],
)
def test_a_response_that_breaks_the_protocol_is_refused(
    server: CompletionsServer, ending_folder: Path, ids: list[int], reason: str | None
) -> None:
    server.changes = {"token_ids": ids, "finish_reason": reason}
    with pytest.raises(AnswerError, match="ended a response with"):
        opened(server, ending_folder).generate(requests(1), silent)


def test_prompt_ids_need_not_be_echoed(server: CompletionsServer, ending_folder: Path) -> None:
    server.changes = {"prompt_token_ids": None, "token_ids": [40, 2], "finish_reason": "stop"}
    assert opened(server, ending_folder).generate(requests(1), silent) == [Completion([40, 2], "stop")]
