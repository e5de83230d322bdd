"""The chat client against a real HTTP server: retries, limits, refusals, and a key that appears nowhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gshf_release.errors import (
    AnswerError,
    EngineError,
    Interrupted,
    NetworkError,
    RecipeError,
    RefusedRequestError,
)
from gshf_release.recipe import profile
from gshf_release.recipe.profile import Server
from gshf_release.run import interrupt
from gshf_release.serving import openai_client
from gshf_release.serving.openai_client import ChatClient, ChatRequest
from gshf_release.serving.openai_replies import ChatAnswer, read_chat
from tests.servers.chat import ChatServer, Fault
from tests.servers.chat.server import KEY


def echo(body: dict[str, Any]) -> str:
    return f"you said {body['messages'][-1]['content']}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """Return a server that repeats, its key in the environment, and pauses of a moment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 0.01)
    with ChatServer(echo) as started:
        yield started


def client(server: ChatServer, **settings: Any) -> ChatClient:
    return ChatClient(Server(address=server.address, **settings))


def request(text: str = "hello", **settings: Any) -> ChatRequest:
    return ChatRequest(
        "some-model", [{"role": "user", "content": text}], **({"temperature": 0.5, "max_tokens": 9} | settings)
    )


def test_an_answer_with_its_tokens(server: ChatServer) -> None:
    assert client(server).complete(request(seed=7)) == ChatAnswer("you said hello", "stop", 11, 3)
    (received,) = server.received
    assert received.body == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": 7,
    }
    assert received.headers["Authorization"] == f"Bearer {KEY}"


def test_an_answer_cut_by_the_limit_says_so(server: ChatServer) -> None:
    assert client(server).complete(request(max_tokens=2)) == ChatAnswer("you said", "length", 11, 2)


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault(status=429), 3),
        (Fault(status=503), 3),
        (Fault(drop=True), 3),
        (Fault(body='{"error": {"message": "slow down", "code": 429}}'), 3),
        (Fault(body="<html>"), 2),
        (Fault(body="{}"), 2),
    ],
    ids=str,
)
def test_a_failure_that_may_pass_is_tried_again(server: ChatServer, fault: Fault, times: int) -> None:
    server.fail(fault, times=times)
    assert client(server).complete(request()).text == "you said hello"
    assert len(server.received) == times + 1


def test_giving_up_is_a_network_error_with_the_last_reason(server: ChatServer) -> None:
    server.fail(Fault(status=503, message="overloaded"), times=9)
    with pytest.raises(NetworkError, match="failed 3 times, at last with: HTTP 503: overloaded"):
        client(server, attempts=3).complete(request())
    assert len(server.received) == 3


def test_a_server_that_is_not_there_is_a_network_error(server: ChatServer) -> None:
    gone = ChatClient(Server(address="http://127.0.0.1:9/v1", attempts=2))
    with pytest.raises(NetworkError, match="failed 2 times"):
        gone.complete(request())


def test_a_server_that_does_not_answer_in_time_is_tried_again(server: ChatServer) -> None:
    server.ready = lambda: False
    with pytest.raises(NetworkError, match="timed out"):
        client(server, attempts=2, timeout_seconds=0.1).complete(request())


def test_pauses_double_and_are_spread(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 1.0)
    pauses = [openai_client._pause(attempt, "a") for attempt in range(1, 9)]
    assert all(0.5 * 2**k <= pause <= 2**k for k, pause in enumerate(pauses[:6]))
    assert all(30 <= pause <= 60 for pause in pauses[6:])
    assert openai_client._pause(1, "a") != openai_client._pause(1, "b")


def test_the_pause_the_server_asks_for_is_kept(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("gshf_release.run.interrupt.sleep", waited.append)
    server.fail(Fault(status=429, retry_after="7"))
    server.fail(Fault(status=429, retry_after="soon"))
    client(server).complete(request())
    assert waited[0] == 7
    assert 0 < waited[1] <= 0.02


def test_a_refusal_for_good_is_not_tried_again(server: ChatServer) -> None:
    server.fail(Fault(status=400, message="too many tokens\nin the prompt"))
    with pytest.raises(EngineError, match="refused the request with HTTP 400: too many tokens in the prompt"):
        client(server).complete(request())
    assert len(server.received) == 1


def test_a_wrong_key_names_the_variable_and_never_the_key(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-wrong-and-secret")
    with pytest.raises(EngineError) as caught:
        client(server, key_variable="OTHER_KEY").complete(request())
    line = str(caught.value)
    assert "HTTP 401: Incorrect API key provided: Bearer $OTHER_KEY" in line
    assert "Set the environment variable OTHER_KEY" in line
    assert "sk-wrong" not in line


def test_the_key_is_in_no_representation(server: ChatServer) -> None:
    one = client(server)
    assert KEY not in repr(one) + repr(vars(one)) + repr(one.server)


def test_the_key_is_not_carried_to_another_address(server: ChatServer) -> None:
    with ChatServer(echo) as elsewhere:
        server.fail(Fault(status=302, location=f"{elsewhere.address}/chat/completions"))
        with pytest.raises(EngineError, match="HTTP 302"):
            client(server).complete(request())
        assert elsewhere.received == []


def test_answers_come_in_the_order_of_the_requests_within_the_limit(server: ChatServer) -> None:
    server.delay = 0.05
    server.ready = lambda: server.most_at_once >= 3
    finished: list[int] = []
    answers = client(server, concurrent_requests=3).complete_all(
        [request(str(number)) for number in range(10)], lambda index, answer: finished.append(index)
    )
    assert [answer.text for answer in answers] == [f"you said {number}" for number in range(10)]
    assert sorted(finished) == list(range(10))
    assert server.most_at_once == 3


def test_after_a_failure_what_was_under_way_is_still_heard_of(server: ChatServer) -> None:
    ordered = threading.Event()

    def refuse_some(body: dict[str, Any]) -> str:
        if body["messages"][-1]["content"] == "0":
            server.fail(Fault(status=400))
            ordered.set()
        assert ordered.wait(60)
        time.sleep(0.02)
        return echo(body)

    server.answer = refuse_some
    server.delay = 0.05
    finished: list[int] = []
    with pytest.raises(EngineError, match="HTTP 400"):
        client(server, concurrent_requests=2).complete_all(
            [request(str(number)) for number in range(200)], lambda index, answer: finished.append(index)
        )
    assert 0 in finished
    assert len(server.received) < 100


def test_a_request_to_stop_ends_the_waiting(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_SECONDS", 200.0)
    monkeypatch.setattr(openai_client, "LONGEST_PAUSE_SECONDS", 200.0)
    server.fail(Fault(status=503), times=9)
    stop = threading.Event()
    monkeypatch.setattr(interrupt, "_requested", stop)
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        client(server).complete_all([request()], lambda index, answer: None)
    assert time.monotonic() - begun < 60, "a pause is of 100 seconds at least"


def test_an_address_is_needed() -> None:
    with pytest.raises(EngineError, match="names no server"):
        ChatClient(Server())


@pytest.mark.parametrize("address", ["localhost:8000", "http://me:secret@host/v1", "https://host/v1?key=secret"])
def test_an_address_is_http_and_holds_no_secret(address: str) -> None:
    with pytest.raises(RecipeError, match="--server: address"):
        profile.with_server(profile.Profile(), address)
    assert profile.with_server(profile.Profile(), "http://host:8000/v1").server.address == "http://host:8000/v1"


def test_log_probabilities_and_further_keys_are_asked_for(server: ChatServer) -> None:
    wanted = request(
        top_logprobs=5, limit_key="max_completion_tokens", extra={"reasoning_effort": "low", "max_tokens": 9}
    )
    client(server).complete(wanted)
    (received,) = server.received
    assert received.body["logprobs"] is True
    assert received.body["top_logprobs"] == 5
    assert received.body["max_completion_tokens"] == 9
    assert received.body["reasoning_effort"] == "low"


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_a_server_without_log_probabilities_gives_none(logprobs: Any) -> None:
    choice = {"message": {"content": "m"}, "logprobs": logprobs}
    answer = read_chat(json.dumps({"choices": [choice], "model": "m-1"}).encode())
    assert answer.logprobs is None
    assert answer.model == "m-1"


def test_the_log_probabilities_come_with_the_answer() -> None:
    tokens = [{"token": "m", "logprob": -0.1, "top_logprobs": [{"token": "m", "logprob": -0.1}]}]
    choice = {"message": {"content": "m"}, "logprobs": {"content": tokens}}
    answer = read_chat(json.dumps({"choices": [choice]}).encode())
    assert answer.logprobs == tokens


def test_azure_gets_its_header_and_version(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "azure-secret")
    server.key = None
    azure = client(server, key_variable="AZURE_KEY", key_header="api-key", api_version="2024-10-21")
    assert azure.address == f"{server.address}/chat/completions?api-version=2024-10-21"
    with pytest.raises(EngineError, match="no /v1/chat/completions"):
        azure.complete(request())
    (received,) = server.received
    headers = {name.lower(): value for name, value in received.headers.items()}
    assert headers["api-key"] == "azure-secret"
    assert "authorization" not in headers


class Ledger:
    """Notes what a meter is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self) -> None:
        self.told.append("begin")

    def failed(self, charged: bool) -> None:
        self.told.append(charged)


def test_a_meter_hears_of_every_try_and_whether_it_may_be_charged(server: ChatServer) -> None:
    ledger = Ledger()
    server.fail(Fault(status=503))
    server.fail(Fault(body="<html>"))
    server.fail(Fault(body='{"error": {"message": "slow down", "code": 429}}'))
    server.fail(Fault(body='{"choices": ['))
    server.fail(Fault(drop=True))
    client(server).complete(request(), ledger)
    assert ledger.told == ["begin", False, "begin", False, "begin", False, "begin", True, "begin", True, "begin"]
    ledger.told.clear()
    server.fail(Fault(status=400))
    with pytest.raises(EngineError):
        client(server).complete(request(), ledger)
    assert ledger.told == ["begin", False]


def test_answers_that_never_can_be_read_are_told_from_a_dead_server(server: ChatServer) -> None:
    server.fail(Fault(body="<html>"), times=2)
    with pytest.raises(AnswerError, match="failed 2 times, at last with: a page of HTML"):
        client(server, attempts=2).complete(request())


def test_a_file_of_requests_can_be_sent_and_asked_for(server: ChatServer) -> None:
    with pytest.raises(EngineError, match="HTTP 404: no /v1/files"):
        client(server).send("POST", "/files", b"{}")


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_an_address_is_taken_as_meant(server: ChatServer, ending: str) -> None:
    assert ChatClient(Server(address=server.address + ending)).complete(request()).text == "you said hello"


def test_an_address_without_its_version_says_what_to_add(server: ChatServer) -> None:
    root = server.address.removesuffix("/v1")
    with pytest.raises(EngineError, match=rf"HTTP 404.*server.address={root}/v1"):
        ChatClient(Server(address=root)).complete(request())


@pytest.mark.parametrize("address", ["http://host:99999/v1", "http://host:port/v1", f"http://{'a' * 70}.example/v1"])
def test_an_address_that_cannot_be_asked_is_one_line(address: str) -> None:
    with pytest.raises((EngineError, NetworkError)):
        ChatClient(Server(address=address, attempts=1)).complete(request())


@pytest.mark.parametrize("written", [f"{KEY}\n", f" {KEY}\r\n", f"\t{KEY}"])
def test_blanks_around_a_key_do_not_count(server: ChatServer, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", written)
    client(server).complete(request())
    assert server.received[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        ("\n", "a line break"),
        ("\r\nHost: x", "a line break"),
        ('"', "a quote"),
        (" ", "a blank"),
        ("\x1b", "a control character"),
        ("\u2013", "not of ASCII"),
        ("\udcff", "not of ASCII"),
        ("\x7f", "not of ASCII"),
    ],
)
def test_a_key_that_cannot_be_sent_is_named_by_its_variable(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, inside: str, what: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-abcdefgh{inside}ijklmnop")
    with pytest.raises(EngineError) as caught:
        client(server).complete(request())
    told = str(caught.value)
    assert told.startswith("The key in the environment variable OPENAI_API_KEY cannot be sent: it holds ")
    assert what in told
    assert "abcdefgh" not in str(caught.value)
    assert server.received == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("data: {}\n\n", "answers with an event stream, which was not asked for"),
        ('{"error": {"message": "no such model", "code": 404}}', "HTTP 404: no such model"),
        ('{"error": {"message": "Insufficient credits", "code": 402}}', "HTTP 402: Insufficient credits"),
    ],
)
def test_a_200_that_will_not_pass_ends_at_once(server: ChatServer, body: str, reason: str) -> None:
    server.fail(Fault(body=body))
    with pytest.raises(EngineError, match=reason):
        client(server).complete(request())
    assert len(server.received) == 1


def test_an_answer_without_end_is_given_up(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "MOST_BYTES", 100_000)
    server.fail(Fault(body=" " * 200_000), times=9)
    with pytest.raises(AnswerError, match="an answer of more than 0 MiB"):
        client(server).complete(request())


def test_an_answer_that_drips_is_given_up(server: ChatServer) -> None:
    server.fail(Fault(body=" " * 200, drip_seconds=0.05), times=9)
    begun = time.monotonic()
    with pytest.raises(NetworkError, match="an answer that does not end"):
        client(server, attempts=1, timeout_seconds=0.5).complete(request())
    assert time.monotonic() - begun < 8, "the whole answer takes 10 seconds"


@pytest.mark.parametrize("packed", [True, False])
def test_a_packed_answer_is_unpacked_within_the_bound(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(openai_client, "MOST_BYTES", 1_000_000)
    answer = {"choices": [{"message": {"content": "packed" if packed else " " * 2_000_000}}]}
    server.fail(Fault(body=json.dumps(answer), packed=True), times=9)
    if packed:
        assert client(server).complete(request()).text == "packed"
    else:
        with pytest.raises(AnswerError, match="an answer of more than"):
            client(server).complete(request())


def test_a_refusal_of_one_request_is_told_from_one_of_all(server: ChatServer) -> None:
    server.fail(Fault(status=400, message="maximum context length is 9 tokens"))
    with pytest.raises(RefusedRequestError) as caught:
        client(server).complete(request())
    assert caught.value.reason == "HTTP 400: maximum context length is 9 tokens"
    assert not caught.value.unclear
    server.fail(Fault(status=400, message="odd"))
    with pytest.raises(RefusedRequestError) as caught:
        client(server).complete(request())
    assert caught.value.unclear


def test_a_password_in_an_address_is_never_shown() -> None:
    for address in (
        "http://me:s3cretPASS99@host/v1",
        "http://me:s3cret/PASS99@host/v1",
        "http://h/v1?key=s3cretPASS99",
    ):
        with pytest.raises(RecipeError) as caught:
            profile.with_server(profile.Profile(), address)
        assert "PASS99" not in str(caught.value)
