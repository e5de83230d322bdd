"""What a server refuses, or answers with what is no answer: one failed judgment, or the end with the server's words."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import EngineError
from gshf_release.evaluation.judging.cache import Cache, Judgment
from gshf_release.evaluation.judging.session import JudgeSession
from tests.evaluation.judging.test_session import PRICES, prompts
from tests.servers.judge import KEY, JudgeServer, Reply

Make = Callable[..., JudgeSession]
Refusal = tuple[int, dict[str, Any]]


def refuse(status: int, message: str, **fields: Any) -> Refusal:
    return status, {"error": {"message": message, **fields}}


def only(text: str, refusal: Refusal) -> Callable[[Any], Refusal | None]:
    """Refuse the prompts that hold a text."""
    return lambda body: refusal if text in json.dumps(body["messages"]) else None


@pytest.mark.parametrize(
    "refusal",
    [
        refuse(400, "The response was filtered", code="content_filter"),
        refuse(400, "context length"),
        refuse(400, "odd"),
    ],
)
def test_one_prompt_that_is_refused_is_one_failed_judgment(
    session: Make, server: JudgeServer, refusal: Refusal
) -> None:
    server.refuses = only("text 7", refusal)
    one = session("mt-bench-single", *PRICES, "endpoint.concurrent_requests=3", max_cost=1.0)
    found = one.judge(prompts(10))
    failed = [judgment.failed for judgment in found if judgment.failed]
    assert failed == [f"HTTP 400: {refusal[1]['error']['message']}"]
    assert server.numbers == 10
    assert one.spending.cost == pytest.approx(server.cost(10, 30)), "a refusal costs nothing"


def test_what_fails_is_asked_for_again_by_the_same_command(session: Make, server: JudgeServer) -> None:
    server.refuses = only("text 2", refuse(400, "filtered", code="content_filter"))
    session().judge(prompts(4))
    server.refuses = lambda body: None
    assert not any(judgment.failed for judgment in session().judge(prompts(4)))
    assert server.numbers == 4 + 1


def test_a_server_that_refuses_every_prompt_alike_ends_the_judging(session: Make, server: JudgeServer) -> None:
    server.refuses = lambda body: refuse(400, "this is odd")
    with pytest.raises(EngineError, match=r"HTTP 400: this is odd\. It has answered none of the 5 prompts tried"):
        session("mt-bench-single", "endpoint.concurrent_requests=1").judge(prompts(30))
    assert server.numbers == 5


@pytest.mark.parametrize(
    ("refusal", "hint"),
    [
        (refuse(402, "Insufficient credits"), "billing page"),
        (refuse(429, "You exceeded your quota", code="insufficient_quota"), "billing page"),
        (refuse(404, "The model `x` does not exist"), "Set `model` to one that the server has"),
        (refuse(400, "System role not supported"), "parameters.system_role=false"),
        (refuse(400, "Unsupported parameter", param="temperature"), "parameters.temperature=null"),
        (refuse(200, "Rate limit exceeded: free-models-per-day", code=429), "when the day's limit is over"),
    ],
)
def test_what_concerns_the_server_ends_at_once_with_a_hint(
    session: Make, server: JudgeServer, refusal: Refusal, hint: str
) -> None:
    server.refuses = lambda body: refusal
    with pytest.raises(EngineError) as caught:
        session("mt-bench-single", "endpoint.concurrent_requests=1").judge(prompts(30))
    assert hint in str(caught.value)
    assert refusal[1]["error"]["message"] in str(caught.value)
    assert server.numbers == 1


def test_a_judge_without_a_system_role_hears_its_text_from_the_user(session: Make, server: JudgeServer) -> None:
    prompt: Any = [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Rate this."}]
    session("mt-bench-single", "parameters.system_role=false").judge([prompt])
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "Be fair.\n\nRate this."}]


def test_a_parameter_that_is_null_is_not_sent(session: Make, server: JudgeServer) -> None:
    server.judge = lambda body: Reply("Rating: [[8]]")
    overrides = [f"parameters.{name}=null" for name in ("temperature", "top_p", "seed")]
    session("mt-bench-single", *overrides).judge(prompts(1))
    assert set(server.bodies[0]) == {"model", "messages", "max_tokens"}


def test_a_limit_of_money_needs_a_limit_of_tokens(session: Make) -> None:
    with pytest.raises(EngineError, match=r"--max-cost needs to know how long.* parameters.max_tokens"):
        session("mt-bench-single", *PRICES, "parameters.max_tokens=null", max_cost=1.0)


def test_a_judgment_that_is_not_understood_is_failed_with_its_text_and_not_cached(
    session: Make, server: JudgeServer
) -> None:
    def understood(judgment: Judgment) -> str:
        return "" if "blue" in judgment.text else "no colour"

    server.edit = lambda document: _saying(document, "red")
    (judgment,) = session().judge(prompts(1), understood=understood)
    assert (judgment.failed, judgment.text) == ("no colour", "red")
    server.edit = lambda document: _saying(document, "blue")
    (judgment,) = session().judge(prompts(1), understood=understood)
    assert (judgment.failed, judgment.text) == ("", "blue")
    session().judge(prompts(1), understood=understood)
    assert server.numbers == 2


def test_what_was_cached_and_is_not_understood_is_asked_for_anew(session: Make, server: JudgeServer) -> None:
    session().judge(prompts(1))
    (judgment,) = session().judge(prompts(1), understood=lambda one: "never")
    assert judgment.failed == "never"
    assert server.numbers == 2


def _saying(document: dict[str, Any], text: str, **message: Any) -> dict[str, Any]:
    choice = document["choices"][0]
    return document | {"choices": [choice | {"message": {"content": text, **message}}]}


def _cut(document: dict[str, Any]) -> dict[str, Any]:
    message = {"content": "", "reasoning_content": "I give [[8]]"}
    return document | {"choices": [{"message": message, "finish_reason": "length"}]}


def test_an_answer_cut_before_any_text_names_the_limit_and_is_not_asked_for_again(
    session: Make, server: JudgeServer
) -> None:
    server.edit = _cut
    (judgment,) = session("mt-bench-single", "parameters.max_tokens=50").judge(prompts(1))
    assert judgment.failed == (
        "all its tokens went into thoughts (finish_reason length): raise parameters.max_tokens, now 50"
    )
    assert judgment.reasoning == "I give [[8]]"
    assert server.numbers == 1


def test_a_null_log_probability_is_cached_as_none_and_a_wrong_one_never(session: Make, server: JudgeServer) -> None:
    def with_value(value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def change(document: dict[str, Any]) -> dict[str, Any]:
            pairs = [{"token": "m", "logprob": value}, {"token": "M", "logprob": -1.0}]
            choice = document["choices"][0]
            logprobs = {"content": [{"token": "m", "logprob": value, "top_logprobs": pairs}]}
            return document | {"choices": [choice | {"logprobs": logprobs}]}

        return change

    server.edit = with_value(1e308)
    one = session("alpaca-eval", "endpoint.attempts=2")
    with pytest.raises(EngineError, match=r"log-probability that is none: 1e\+308"):
        one.judge(prompts(1))
    server.edit = with_value(None)
    (judgment,) = session("alpaca-eval").judge(prompts(1))
    assert judgment.logprobs is not None
    assert [each["token"] for each in judgment.logprobs[0]["top_logprobs"]] == ["M"]
    assert session("alpaca-eval").judge(prompts(1)) == [judgment]


def test_a_cached_judgment_of_another_shape_counts_as_absent(
    session: Make, server: JudgeServer, tmp_path: Path
) -> None:
    one = session()
    one.judge(prompts(1))
    cache, key = Cache(tmp_path / "cache"), one.wanted(prompts(1)[0]).key
    kept = cache.get(key)
    assert kept is not None
    cache.put(key, replace(kept, logprobs=["m"]))  # type: ignore[list-item]
    assert cache.get(key) is None
    one.judge(prompts(1))
    assert server.numbers == 2


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5_000_000_000, "completion_tokens": -5_000_000_000},
        {"prompt_tokens": 10**300, "completion_tokens": 10},
        {"prompt_tokens": 1, "completion_tokens": 0},
        {"prompt_tokens": 3000, "completion_tokens": 10**7},
        {"prompt_tokens": "3000", "completion_tokens": None},
        [],
    ],
)
def test_counts_that_cannot_be_are_taken_at_the_worst_case(session: Make, server: JudgeServer, usage: Any) -> None:
    server.edit = lambda document: document | {"usage": usage}
    one = session("mt-bench-single", *PRICES, "parameters.max_tokens=100", max_cost=1.0)
    one.judge(prompts(1, 4000))
    assert one.spending.cost == pytest.approx(((4006 + 16) * 10 + 100 * 30) / 1e6)
    assert one.spending.prompt_tokens == 1002 + 8
    assert 0 < one.spending.completion_tokens < 100


def test_all_from_the_cache_is_said_with_day_and_model(session: Make, server: JudgeServer) -> None:
    said: list[str] = []
    session().judge(prompts(3))
    session(say=said.append).judge(prompts(3))
    (line,) = said
    assert line.startswith("openai-compatible-mt-bench-single: 3 of 3 judgments from the cache (20")
    assert line.endswith(", answered by some-judge-0001), 0 asked; --ask-again all asks for them anew.")


def test_judgments_from_before_a_time_are_asked_for_anew_and_replaced(session: Make, server: JudgeServer) -> None:
    (old,) = session().judge(prompts(1))
    server.edit = lambda document: document | {"model": "some-judge-0002"}
    (new,) = session(since=old.asked_at + 0.001).judge(prompts(1))
    assert (new.model, server.numbers) == ("some-judge-0002", 2)
    assert session().judge(prompts(1)) == [new]


def test_a_key_that_is_said_back_cut_or_encoded_is_in_no_text(
    session: Make, server: JudgeServer, tmp_path: Path
) -> None:
    shown = f"{KEY[:12]}...{KEY[-6:]} {base64.b64encode(KEY.encode()).decode()}"
    server.edit = lambda document: _saying(document, f"Rating: [[8]] {shown}", reasoning_content=KEY[:20])
    (judgment,) = session().judge(prompts(1))
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert judgment.text.startswith("Rating: [[8]] $OPENAI_API_KEY")
    assert judgment.reasoning == "$OPENAI_API_KEY"
    assert KEY[:12] not in kept
    assert KEY[-6:] not in kept
    assert "c2stdGVzdC" not in kept
    server.refuses = lambda body: refuse(401, f"Incorrect API key: {shown}")
    with pytest.raises(EngineError) as caught:
        session().judge(prompts(2))
    assert KEY[:12] not in str(caught.value)
    assert KEY[-6:] not in str(caught.value)


@pytest.mark.parametrize("batch", [False, True])
def test_what_is_cached_is_its_owners_alone(session: Make, server: JudgeServer, tmp_path: Path, batch: bool) -> None:
    before = os.umask(0)
    try:
        session(batch=batch).judge(prompts(2))
    finally:
        os.umask(before)
    made = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()} == {0o600}
