"""Whatever comes back is an answer with checked values, or one line that says what it is; never another exception."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.serving.openai_replies import ChatAnswer, UnreadableReply, read_chat, read_completion


def body(message: Any = None, **changes: Any) -> bytes:
    choice = {
        "index": 0,
        "message": {"content": "Rating: [[8]]"} if message is None else message,
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    document = {"model": "judge-x", "choices": [choice], "usage": usage}
    for name, value in changes.items():
        (choice if name in ("finish_reason", "logprobs", "message") else document)[name] = value
    return json.dumps(document).encode()


def letters(*pairs: tuple[str, Any]) -> dict[str, Any]:
    listed = [{"token": token, "logprob": value} for token, value in pairs]
    return {"content": [{**listed[0], "top_logprobs": listed}]}


def refused(content: bytes) -> UnreadableReply:
    with pytest.raises(UnreadableReply) as caught:
        read_chat(content)
    return caught.value


def test_a_plain_answer() -> None:
    assert read_chat(body()) == ChatAnswer("Rating: [[8]]", "stop", 100, 10)
    assert read_chat(body()).model == "judge-x"
    assert read_chat(b"\xef\xbb\xbf" + body()).text == read_chat(b"   \n" + body()).text == "Rating: [[8]]"


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": None, "reasoning_content": "I give [[8]]"}, "", "I give [[8]]"),
        ({"content": "[[9]]", "reasoning": "[[3]]?"}, "[[9]]", "[[3]]?"),
        ({"content": "[[9]]", "reasoning_content": None, "reasoning": {"effort": 1}}, "[[9]]", ""),
        ({"content": "[[9]]", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, "[[9]]", "Hm"),
        ({"content": [{"type": "text", "text": "Rating: "}, {"type": "text", "text": "[[7]]"}]}, "Rating: [[7]]", ""),
        ({"content": ["a", {"type": "image_url"}, 5, None]}, "a", ""),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "[[3]]"}]}, {"text": "[[9]]"}]},
            "[[9]]",
            "[[3]]",
        ),
        ({"content": []}, "", ""),
        ({"content": "half \ud83d"}, "half ?", ""),
    ],
)
def test_text_and_thoughts_are_told_apart(message: Any, text: str, reasoning: str) -> None:
    answer = read_chat(body(message))
    assert (answer.text, answer.reasoning) == (text, reasoning)


def test_a_message_that_is_null_says_nothing() -> None:
    content = json.dumps({"choices": [{"message": None, "finish_reason": "length"}]}).encode()
    answer = read_chat(content)
    assert (answer.text, answer.cut, answer.prompt_tokens) == ("", True, 0)


@pytest.mark.parametrize(
    ("message", "finish_reason", "why"),
    [
        ({"content": None, "refusal": "I cannot help."}, "stop", "the model declines: I cannot help"),
        ({"content": None}, "content_filter", "withheld by the server's content filter"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls", "a call of a tool instead of text"),
        ({"content": ""}, "stop", ""),
    ],
)
def test_why_there_is_no_text(message: Any, finish_reason: str, why: str) -> None:
    answer = read_chat(body(message, finish_reason=finish_reason))
    assert (answer.refused, answer.finish_reason) == (why, finish_reason)


@pytest.mark.parametrize("value", [-5_000_000_000, 10**300, math.nan, math.inf, "100", None, True, [], {}])
def test_a_count_that_is_none_counts_as_not_given(value: Any) -> None:
    answer = read_chat(body(usage={"prompt_tokens": value, "completion_tokens": value}))
    assert (answer.prompt_tokens, answer.completion_tokens) == (0, 0)


@pytest.mark.parametrize("usage", [[], None, "many", 5])
def test_usage_of_another_shape_counts_as_not_given(usage: Any) -> None:
    assert read_chat(body(usage=usage)).prompt_tokens == 0


def test_a_model_that_is_no_text_has_no_name() -> None:
    assert read_chat(body(model=5)).model == ""


def test_an_alternative_without_a_probability_is_none() -> None:
    answer = read_chat(body(logprobs=letters(("m", None), ("M", -1.0), ("x", -math.inf))))
    assert answer.logprobs == [{"token": "m", "logprob": None, "top_logprobs": [{"token": "M", "logprob": -1.0}]}]
    missing = read_chat(body(logprobs={"content": [{"token": "m", "top_logprobs": [{"token": "M"}]}]}))
    assert missing.logprobs == [{"token": "m", "logprob": None, "top_logprobs": []}]


def test_a_log_probability_rounded_above_0_is_0() -> None:
    answer = read_chat(body(logprobs=letters(("m", 1e-7), ("M", -(10**400)))))
    assert answer.logprobs is not None
    assert [each["logprob"] for each in answer.logprobs[0]["top_logprobs"]] == [0.0, -1e300]


@pytest.mark.parametrize("value", [1e308, math.inf, math.nan, "-0.1", 10**300, True, [], {}, 0.5])
def test_what_cannot_be_a_log_probability_makes_the_answer_unreadable(value: Any) -> None:
    assert "log-probability that is none" in str(refused(body(logprobs=letters(("m", value), ("M", -1.0)))))


@pytest.mark.parametrize(
    "logprobs",
    [
        "x",
        {"content": 5},
        {"content": ["m"]},
        {"content": [{"token": 5}]},
        {"content": [{"token": "m", "top_logprobs": [5]}]},
    ],
)
def test_log_probabilities_of_another_shape_make_the_answer_unreadable(logprobs: Any) -> None:
    assert "log-probabilities" in str(refused(body(logprobs=logprobs)))


@pytest.mark.parametrize(
    ("content", "said", "charged"),
    [
        (b"<html><head><title>502 Bad\nGateway</title>", "a page of HTML: 502 Bad Gateway", False),
        (b"", "an empty answer", True),
        (b'{"choices": [{"mess', "its JSON is damaged or cut off", True),
        (b"upstream error", "no chat completion: upstream error", False),
        (b"5", "without choices: 5", False),
        (b'{"choices": []}', "without choices", False),
        (b'{"choices": null}', "without choices", False),
        (b'{"choices": ["m"]}', "without choices", False),
        (b'{"detail": "Not Found"}', "an error object: Not Found", False),
        (b'{"error": "overloaded"}', "an error object: overloaded", False),
        (b'{"error": {"message": "Rate limit", "code": 429}}', "HTTP 429: Rate limit", False),
        (b'{"object": "error", "message": "No such", "code": 404}', "HTTP 404: No such", False),
        (
            b'{"choices": [{"error": {"code": 502, "message": "gone"}, "finish_reason": "error"}]}',
            "HTTP 502: gone",
            False,
        ),
        (b'{"choices": [{"message": {"content": 5}}]}', "content is neither text nor a list", False),
        (b'{"choices": [{"message": "hello"}]}', "message is no object", False),
        (b"[" * 100_000, "nested too deeply", False),
        (b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", False),
    ],
)
def test_what_is_no_answer_says_what_it_is(content: bytes, said: str, charged: bool) -> None:
    reply = refused(content)
    assert said in str(reply)
    assert reply.charged is charged


def test_an_event_stream_will_not_pass() -> None:
    reply = refused(b'data: {"choices": [{"delta": {"content": "8"}}]}\n\ndata: [DONE]\n')
    assert str(reply) == "an event stream, which was not asked for"
    assert reply.final


def test_secrets_are_taken_out_of_everything() -> None:
    def mask(text: str) -> str:
        return text.replace("sk-secret", "$KEY")

    content = body({"content": "sk-secret", "reasoning": "sk-secret"}, model="sk-secret", finish_reason="sk-secret")
    answer = read_chat(content, mask)
    assert [answer.text, answer.reasoning, answer.model, answer.finish_reason] == ["$KEY"] * 4
    spelled = {"content": [{"token": token, "logprob": -0.1, "bytes": [115]} for token in ("sk-", "secret")]}
    answer = read_chat(body(logprobs=spelled), mask)
    assert answer.logprobs is not None
    assert [(token["token"], token["bytes"]) for token in answer.logprobs] == [("", None), ("", None)]


NAMES = (
    "choices message content text type logprobs top_logprobs token logprob usage error model finish_reason "
    "reasoning_content reasoning_details prompt_tokens detail bytes code"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("x"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES.split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, JSON, JSON)
def test_no_document_raises_anything_else(document: Any, message: Any, logprobs: Any) -> None:
    choice = {"message": message, "logprobs": logprobs, "finish_reason": document}
    for given_document in (
        document,
        {"choices": [choice], "usage": document, "model": message},
        {"choices": [message]},
    ):
        with contextlib.suppress(UnreadableReply):
            answer = read_completion(given_document)
            json.dumps([answer.text, answer.reasoning, answer.model, answer.logprobs], allow_nan=False)
            assert 0 <= answer.prompt_tokens <= 10**8
            assert "\ud83d" not in answer.text + answer.reasoning + answer.model
