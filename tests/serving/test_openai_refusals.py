"""Refusals as providers write them: which pass, which are about one prompt, which about the server, and the hint for each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gshf_release.serving.openai_refusals import SettingNames, refusal

JUDGE = SettingNames("`endpoint` and `parameters` of the judge j", "endpoint.address", "`model`", "parameters")


def error(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message, **fields}})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, error("Rate limit reached"), "passing"),
        (529, error("Overloaded"), "passing"),
        (503, "<html><title>503</title>", "passing"),
        (200, error("slow down", code=429), "passing"),
        (200, error("slow down", code="rate_limit_exceeded"), "passing"),
        (429, error("You exceeded your current quota.", code="insufficient_quota"), "server"),
        (
            429,
            error("You exceeded your current quota, please check your plan.", status="RESOURCE_EXHAUSTED"),
            "passing",
        ),
        (429, error("Rate limit exceeded: free-models-per-day"), "server"),
        (402, error("Insufficient credits", code=402), "server"),
        (200, error("Insufficient credits", code=402), "server"),
        (401, error("Incorrect API key provided"), "server"),
        (403, error("Forbidden"), "server"),
        (403, error("Your input was flagged by moderation"), "prompt"),
        (404, json.dumps({"detail": "Not Found"}), "server"),
        (404, error("The model `x` does not exist."), "server"),
        (400, error("The response was filtered.", code="content_filter", status=400), "prompt"),
        (400, error("bad", code=None, innererror={"code": "ResponsibleAIPolicyViolation"}), "prompt"),
        (400, error("This model's maximum context length is 8192 tokens."), "prompt"),
        (400, error("prompt is too long: 210000 tokens > 200000 maximum"), "prompt"),
        (400, error("'max_tokens' is too large: 2048. This model's maximum context length is 2048"), "unclear"),
        (413, "Request Entity Too Large", "prompt"),
        (400, error("Unsupported parameter: 'temperature'", param="temperature"), "server"),
        (400, error("Unrecognized request argument supplied: top_k"), "server"),
        (422, json.dumps({"detail": [{"loc": ["body", "top_p"], "msg": "extra fields not permitted"}]}), "server"),
        (400, error("System role not supported"), "server"),
        (400, error("model claude-2 has been retired"), "server"),
        (400, error("The model `m` has been decommissioned and is no longer supported"), "server"),
        (400, error("something went wrong"), "unclear"),
        (422, "unprocessable", "unclear"),
        (400, "", "unclear"),
        (302, "", "server"),
    ],
)
def test_what_a_refusal_concerns(status: int, body: str, kind: str) -> None:
    assert refusal(status, body, "Reason").kind == kind


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, error("no"), "Set the environment variable KEY to a valid key (it is not set)."),
        (402, error("no"), "The account of $KEY has no credit"),
        (429, error("no", code="insufficient_quota"), "provider's billing page"),
        (404, json.dumps({"detail": "Not Found"}), "endpoint.address=http://host:1/v1. Else check `model`"),
        (404, error("The model `x` does not exist."), "Set `model` to one that the server has."),
        (400, error("x", param="temperature"), "parameters.temperature=null"),
        (400, error("Unsupported parameter: 'logprobs'", param="logprobs"), "parameters.top_logprobs=null"),
        (
            400,
            error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", param="max_tokens"),
            "parameters.limit_key=max_completion_tokens",
        ),
        (400, error("Only user, assistant and tool roles are supported"), "parameters.system_role=false"),
        (
            400,
            error("Conversation roles must alternate user/assistant/user/assistant/..."),
            "parameters.system_role=false",
        ),
        (400, error("Developer instruction is not enabled for models/gemma-3-27b-it"), "parameters.system_role=false"),
        (400, error("x"), "See `endpoint` and `parameters` of the judge j"),
    ],
)
def test_the_hint_fits_judges(status: int, body: str, hint: str) -> None:
    assert hint in refusal(status, body).hint("http://host:1", "KEY", False, JUDGE)


def test_the_words_are_the_servers_on_one_line_and_printable() -> None:
    assert str(refusal(400, error("a\n b\x1b[31m."))) == "HTTP 400: a b\\x1b[31m"
    assert str(refusal(502, "<html><title>Bad  Gateway</title>x")) == "HTTP 502: Bad Gateway"
    assert str(refusal(502, "", "Bad Gateway")) == "HTTP 502: Bad Gateway"
    assert str(refusal(500, "[" * 50_000, "x")).startswith("HTTP 500: [[[")
    assert str(refusal(400, json.dumps({"error": [{"message": "listed"}]}))) == "HTTP 400: listed"
    assert str(refusal(400, json.dumps({"error": "bare"}))) == "HTTP 400: bare"
    assert str(refusal(400, json.dumps({"error": {"message": {"a": 1}}}))) == 'HTTP 400: {"a": 1}'
