"""Asking a judge over real HTTP: every fault is survived, nothing is paid twice, and the limit holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.data.records import Message
from gshf_release.errors import EngineError, Interrupted, NetworkError
from gshf_release.evaluation.judging.cache import Cache
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.verdicts.reading import Reading
from gshf_release.run import interrupt
from tests.servers.chat.server import always
from tests.servers.judge import KEY, Fault, JudgeServer, by_rule

Make = Callable[..., JudgeSession]
PRICES = ("price.input=10", "price.output=30")
CLIENT = """
import sys
from pathlib import Path
from gshf_release.evaluation.judging import judges
from gshf_release.evaluation.judging.batch import judge_in_batches
from gshf_release.evaluation.judging.session import JudgeSession
address, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
overrides = (f"endpoint.address={address}", "model=some-judge", "endpoint.concurrent_requests=4", *sys.argv[5:])
settings = judges.load("openai-compatible-mt-bench-single", overrides)
session = JudgeSession(settings, folder, batch=judge_in_batches if sys.argv[4] == "batch" else None)
print(len(session.judge([[{"role": "user", "content": f"text {n}"}] for n in range(count)])), session.spending)
"""


def prompts(count: int, length: int = 0) -> list[list[Message]]:
    return [[Message(role="user", content=f"text {number}{'.' * length}")] for number in range(count)]


def client(server: JudgeServer, folder: Path, count: int, way: str = "calls") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CLIENT, server.address, str(folder), str(count), way]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


def test_judgments_come_in_order_and_once_for_equal_prompts(session: Make, server: JudgeServer) -> None:
    one, two = prompts(2)
    found = session().judge([one, two, one])
    assert found[0] == found[2] != found[1]
    assert server.numbers == 2
    assert found[0].model == "some-judge-0001"
    assert found[0].text == by_rule(server.bodies[0] | {"messages": one}).text


@pytest.mark.parametrize(
    "fault",
    [
        Fault("429", retry_after="0"),
        Fault("500"),
        Fault("hang"),
        Fault("truncated"),
        Fault("garbage"),
        Fault("empty"),
        Fault("drop"),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_fault_is_recovered(session: Make, server: JudgeServer, fault: Fault) -> None:
    server.faults = dict.fromkeys((1, 3), fault)
    hangs = fault.kind == "hang"
    found = session("mt-bench-single", f"endpoint.timeout_seconds={0.4 if hangs else 120}").judge(prompts(4))
    assert [bool(judgment.text) and not judgment.failed for judgment in found] == [True] * 4
    assert server.numbers == 6 or (hangs and server.numbers > 6), "another answer may have been late too"


def test_the_pause_that_the_server_asks_for_is_kept(session: Make, server: JudgeServer) -> None:
    server.faults = {1: Fault("429", retry_after="0.6")}
    begun = time.monotonic()
    session().judge(prompts(1))
    assert time.monotonic() - begun >= 0.6


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(session: Make, server: JudgeServer) -> None:
    first = session().judge(prompts(5))
    again = session()
    assert again.judge(prompts(5)) == first
    assert server.numbers == 5
    assert (again.spending.asked, again.spending.cached) == (0, 5)


@pytest.mark.parametrize("override", ["model=another", "parameters.temperature=0.3", "parameters.extra={a: 1}"])
def test_another_judge_or_parameter_is_another_judgment(session: Make, server: JudgeServer, override: str) -> None:
    session().judge(prompts(1))
    session("mt-bench-single", override).judge(prompts(1))
    assert server.numbers == 2


def test_another_price_or_patience_is_the_same_judgment(session: Make, server: JudgeServer) -> None:
    session().judge(prompts(1))
    session("mt-bench-single", *PRICES, "endpoint.attempts=2", "failed_share=0.5").judge(prompts(1))
    assert server.numbers == 1


def test_a_repeat_is_asked_for_anew_with_its_own_seed(session: Make, server: JudgeServer) -> None:
    one = session("mt-bench-single", "parameters.seed=7")
    one.judge(prompts(1))
    one.judge(prompts(1), repeat=1)
    assert [body["seed"] for body in server.bodies] == [7, 8]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "other"}', None])
def test_a_damaged_judgment_is_asked_for_again(
    session: Make, server: JudgeServer, tmp_path: Path, damage: bytes | None
) -> None:
    (first,) = session().judge(prompts(1))
    (path,) = (tmp_path / "cache").rglob("*.json")
    path.write_bytes(path.read_bytes().replace(b"Rating", b"Rotten") if damage is None else damage)
    (again,) = session().judge(prompts(1))
    assert again.text == first.text
    assert server.numbers == 2


def test_an_empty_answer_is_a_failed_judgment_in_the_end(session: Make, server: JudgeServer) -> None:
    server.faults = {number: Fault("empty") for number in range(1, 4)}
    one = session("mt-bench-single", "endpoint.concurrent_requests=1", "failed_share=0.5")
    found = one.judge(prompts(2))
    assert [judgment.failed for judgment in found] == ["empty answer", ""]
    assert server.numbers == 4
    one.accept([Reading(judgment.text or None, judgment.failed) for judgment in found], 2, "a test")
    assert one.spending.failed == 1
    assert not session().judge(prompts(2))[0].failed
    assert server.numbers == 5


def test_an_answer_that_is_never_readable_fails_alone(session: Make, server: JudgeServer) -> None:
    server.faults = {number: Fault("garbage") for number in (1, 2)}
    one = session("mt-bench-single", "endpoint.concurrent_requests=1", "endpoint.attempts=2")
    assert [judgment.failed for judgment in one.judge(prompts(3))] == ["a page of HTML: busy", "", ""]


def test_too_many_failed_judgments_refuse_the_result(session: Make) -> None:
    one = session("mt-bench-single", "failed_share=0.1")
    one.accept([Reading(None, "empty answer")], 10, "a test")
    with pytest.raises(
        EngineError, match=r"2 of 10 judgments of a test .* failed \(2 x empty answer\); 10% are allowed"
    ):
        one.accept([Reading(None, "empty answer")] * 2, 10, "a test")


def test_a_prompt_beyond_the_context_is_not_sent(session: Make, server: JudgeServer) -> None:
    one = session("mt-bench-single", "context=100")
    found = one.judge([*prompts(1), *prompts(1, 4000)])
    assert [judgment.failed for judgment in found] == ["", "prompt longer than the judge's context"]
    assert server.numbers == 1


def test_a_wrong_key_stops_at_once(session: Make, server: JudgeServer) -> None:
    server.faults = {2: Fault("wrong_key")}
    with pytest.raises(EngineError, match="refused the request with HTTP 401"):
        session("mt-bench-single", "endpoint.concurrent_requests=1").judge(prompts(30))
    assert server.numbers == 2


def test_a_dead_server_is_a_network_error_and_what_was_answered_is_kept(session: Make, server: JudgeServer) -> None:
    server.faults = {number: Fault("500") for number in range(6, 100)}
    one = session("mt-bench-single", "endpoint.concurrent_requests=2", "endpoint.attempts=2")
    with pytest.raises(NetworkError, match="failed 2 times"):
        one.judge(prompts(20))
    server.faults.clear()
    session().judge(prompts(20))
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 20


def test_the_key_is_in_no_file_message_or_representation(session: Make, server: JudgeServer, tmp_path: Path) -> None:
    said: list[str] = []
    one = session(say=said.append)
    one.judge(prompts(2))
    session(batch=True, say=said.append).judge(prompts(4))
    server.faults = {server.numbers + 1: Fault("wrong_key")}
    with pytest.raises(EngineError) as caught:
        one.judge(prompts(5))
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) >= 4
    assert "$OPENAI_API_KEY" in str(caught.value)
    everything = [*texts, *said, str(caught.value), repr(vars(one)), repr(vars(one.client)), repr(one.settings)]
    assert all(KEY not in text for text in everything)


def test_the_estimate_is_told_before_and_the_spending_after(session: Make, server: JudgeServer) -> None:
    said: list[str] = []
    session("mt-bench-single", *PRICES, "expected_tokens=100", say=said.append).judge([*prompts(2, 394)])
    # "text N" and 394 dots: 400 characters are 100 tokens, and 8 a message; $10 and $30 a million
    assert said[0].endswith("2 judgments to ask some-judge for, 0 in the cache; about 216 + 200 tokens, about $0.01.")
    assert said[1] == (
        f"openai-compatible-mt-bench-single: 2 judgments asked for, 0 from the cache; {server.prompt_tokens} + "
        f"{server.completion_tokens} tokens, ${server.cost(10, 30):.4f}."
    )


def test_more_than_the_limit_is_refused_before_anything_is_paid(session: Make, server: JudgeServer) -> None:
    with pytest.raises(
        EngineError, match=r"expected to cost \$0\.\d+ after the \$0\.0000 already spent; --max-cost is"
    ):
        session("mt-bench-single", *PRICES, max_cost=0.001).judge(prompts(50))
    assert server.numbers == 0


def test_the_limit_holds_whatever_is_under_way(session: Make, server: JudgeServer) -> None:
    server.delay = 0.02
    server.ready = lambda: server.most_at_once > 2
    options = ("expected_tokens=1", "parameters.max_tokens=40", "endpoint.concurrent_requests=8")
    one = session("mt-bench-single", *PRICES, *options, max_cost=0.016)
    server.faults = {4: Fault("empty"), 7: Fault("garbage"), 9: Fault("truncated")}
    with pytest.raises(EngineError, match=r"stopped at \$0\.01\d\d of --max-cost \$0\.0160.*higher --max-cost"):
        one.judge(prompts(60, 40))
    assert one.spending.cost is not None
    assert 0.009 < server.cost(10, 30) <= one.spending.cost <= 0.016
    assert server.most_at_once > 2
    paid = server.numbers
    session("mt-bench-single", *PRICES, *options, max_cost=1.0).judge(prompts(60, 40))
    assert server.numbers == paid + 60 - (paid - 3)


def test_a_limit_needs_a_price(session: Make) -> None:
    with pytest.raises(EngineError, match=r"--max-cost needs the price of the judge .* Set price.input"):
        session(max_cost=1.0)


def test_a_server_that_does_not_count_is_taken_at_the_worst_case(session: Make, server: JudgeServer) -> None:
    server.counts = False
    one = session("mt-bench-single", *PRICES, "parameters.max_tokens=100", max_cost=1.0)
    one.judge(prompts(1))
    assert one.spending.cost == pytest.approx(((6 + 16) * 10 + 100 * 30) / 1e6)


def test_a_request_to_stop_ends_the_judging(
    session: Make, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    monkeypatch.setattr(interrupt, "_requested", stop)

    def ready() -> bool:
        if server.numbers >= 6:
            stop.set()
        return True

    server.ready = ready
    with pytest.raises(Interrupted):
        session("mt-bench-single", "endpoint.concurrent_requests=2").judge(prompts(100))
    assert 6 <= server.numbers < 20


def test_after_a_kill_nothing_that_was_answered_is_paid_again(
    session: Make, server: JudgeServer, tmp_path: Path
) -> None:
    server.delay = 0.05
    server.ready = lambda: server.numbers < 12
    process = client(server, tmp_path / "cache", 40)
    wait_until(lambda: server.numbers >= 12 and server.under_way == 4)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    server.ready = always
    kept = len(list((tmp_path / "cache").rglob("*.json")))
    sent = server.numbers
    assert 12 - 4 <= kept <= sent < 40
    assert sent - kept <= 4  # only what was under way when it died
    found = session().judge(prompts(40))
    assert server.numbers == sent + 40 - kept
    assert all(judgment.text for judgment in found)
    assert not list((tmp_path / "cache").rglob(".*partial"))


def test_two_processes_share_a_cache_and_pay_once(server: JudgeServer, tmp_path: Path) -> None:
    server.delay = 0.03
    processes = [client(server, tmp_path / "cache", 30) for _ in range(2)]
    outcomes = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert server.numbers == 30
    assert set(server.answered.values()) == {1}


def test_a_lock_left_by_a_dead_process_binds_nobody(session: Make, server: JudgeServer, tmp_path: Path) -> None:
    one = session()
    key = one.wanted(prompts(1)[0]).key
    path = tmp_path / "cache" / key[:2] / f"{key}.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    assert one.judge(prompts(1))[0].text
    assert not path.exists()


def test_a_judgment_survives_the_way_to_disk(tmp_path: Path, session: Make) -> None:
    one = session("alpaca-eval")
    (judgment,) = one.judge(prompts(1))
    kept = Cache(tmp_path / "cache").get(one.wanted(prompts(1)[0]).key)
    assert kept == judgment
    assert judgment.logprobs is not None
    assert json.loads(json.dumps(judgment.logprobs)) == judgment.logprobs
