"""Say what a refusal of an OpenAI-compatible server means: does it pass, is it about this prompt, or about the whole server?

Servers agree on little but the status, so code, parameter and words are looked at too. What cannot be told from one refusal is
`unclear`: whoever asks many prompts sees whether any of them is answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from gshf_release.data.printable import printable

Kind = Literal["passing", "prompt", "server", "unclear"]
PASSING = frozenset({408, 409, 425, 429})
"""Statuses that may pass, apart from those of 500 and above."""
PERHAPS_PROMPT = frozenset({400, 413, 422})
LONGEST_WORDS = 200
"""Characters of a server's words that a message repeats."""

QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance", "arrearage"}
)
PROMPT_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "context_length_exceeded",
        "string_above_max_length",
        "prompt_too_long",
        "invalid_prompt",
        "data_inspection_failed",
        "datainspectionfailed",
    }
)
PASSING_CODES = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "overloaded", "overloaded_error", "server_error", "timeout"}
)
SERVER_CODES = frozenset(
    {"invalid_api_key", "model_not_found", "unsupported_parameter", "unsupported_value", "unknown_parameter"}
)
_FILTERED = (
    r"content.?(filter|policy|management)|\bfiltered\b|\bflagged\b|moderation|safety (system|polic)|responsible.?ai"
)
_LONG = (
    r"context.?(length|window|size)|maximum.{0,20}context|(prompt|input|message).{0,20}too (long|large)"
    r"|too many (input |prompt )?tokens|reduce (the|your) (length|prompt|input)|(entity|payload|request) too large"
)
PROMPT_WORDS = re.compile(f"{_FILTERED}|{_LONG}", re.IGNORECASE)
FILTER_WORDS = re.compile(_FILTERED, re.IGNORECASE)
SYSTEM_WORDS = re.compile(
    r"system.?(role|message|prompt|instruction|turn).{0,60}(not|n't|unsup)|(no|not|unsupported) .{0,20}system.?(role|message)"
    r"|roles must alternate|only user(,| and)|developer instruction is not",
    re.IGNORECASE,
)
MODEL_WORDS = re.compile(
    r"model.{0,80}(not found|not exist|no longer|deprecated|decommissioned|retired|not available|shut ?down)"
    r"|(unknown|invalid|no such) model",
    re.IGNORECASE,
)
PARAMETER_WORDS = re.compile(
    r"un(supported|known|recognized|expected|permitted).{0,20}(parameter|value|argument|field|key)"
    r"|extra (fields|inputs)|not permitted|(is|are) not supported",
    re.IGNORECASE,
)
ACCOUNT_WORDS = re.compile(
    r"api.?key|insufficient.{0,10}(balance|credit|fund|quota)|billing|not logged in", re.IGNORECASE
)
DAY_WORDS = re.compile(r"per.?day|daily", re.IGNORECASE)
LEAVE_OUT = ("temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "top_logprobs", "logprobs")
"""Parameters of a request that a setting can leave out."""


@dataclass(frozen=True, slots=True)
class SettingNames:
    """Says how messages call the settings that the user wrote."""

    place: str = "`server` in the profile"
    address: str = "server.address"
    model: str = "the name of the model"
    parameters: str = ""
    """The section of the request's parameters; empty where they cannot be set one by one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal of a request."""

    status: int
    """Of HTTP, or the code in the error object of an answer with the status 200."""
    words: str
    """The server's own, in one line."""
    code: str = ""
    """The server's name of the error, in small letters."""
    parameter: str = ""
    """The parameter of the request that it names."""

    def __str__(self) -> str:
        status = f"HTTP {self.status}" if self.status != 200 else "an error object"
        return f"{status}: {self.words}" if self.words else status

    @property
    def kind(self) -> Kind:
        """Return whether it may pass, concerns this prompt, the whole server, or cannot be told."""
        if self.no_credit or self.for_the_day:
            return "server"
        if self.status in PASSING or self.status >= 500 or self.code in PASSING_CODES:
            return "passing"
        if self.status == 403 and FILTER_WORDS.search(self.words):
            return "prompt"
        if self.status in PERHAPS_PROMPT or self.status == 200:
            return self._bad_request()
        return "server"

    def _bad_request(self) -> Kind:
        if self.code in PROMPT_CODES:
            return "prompt"
        if "max_" in self.parameter + self.words and PROMPT_WORDS.search(self.words):
            return "unclear"  # prompt and limit together are too long: for this prompt, or for all
        if self.code in SERVER_CODES or self.parameter in LEAVE_OUT:
            return "server"
        if PROMPT_WORDS.search(self.words) or self.status == 413:
            return "prompt"
        if self.status == 200 and "rate limit" in self.words.lower():
            return "passing"
        if any(words.search(self.words) for words in (SYSTEM_WORDS, MODEL_WORDS, PARAMETER_WORDS, ACCOUNT_WORDS)):
            return "server"
        return "unclear"

    @property
    def no_credit(self) -> bool:
        """Return whether the account has nothing left to pay with, which no waiting changes."""
        return self.status == 402 or self.code in QUOTA_CODES

    @property
    def for_the_day(self) -> bool:
        """Return whether a limit of the day is reached, which waiting for minutes does not change."""
        return self.status == 429 and bool(DAY_WORDS.search(self.words))

    def hint(self, address: str, key_variable: str, has_key: bool, names: SettingNames) -> str:
        """Return what to do about it.

        Args:
            address: Of the server, up to `/chat/completions`.
            key_variable: The environment variable of the key.
            has_key: Whether that is set.
            names: What the settings are called.
        """
        if self.no_credit:
            return (
                f"The account of ${key_variable} has no credit: see the provider's billing page, then run the same command "
                "again; what was answered is not asked again."
            )
        if self.for_the_day:
            return "Run the same command again when the day's limit is over; what was answered is not asked again."
        if self.status in (401, 403) or self.code == "invalid_api_key":
            state = "" if has_key else " (it is not set)"
            return f"Set the environment variable {key_variable} to a valid key{state}."
        if MODEL_WORDS.search(self.words) or self.code == "model_not_found":
            return f"Set {names.model} to one that the server has."
        if self.status in (404, 405):
            return _address_hint(address, names)
        return (self._parameter_hint(names) if names.parameters else "") or (
            f"See {names.place} and the name of the model."
        )

    def _parameter_hint(self, names: SettingNames) -> str:
        section = names.parameters
        if SYSTEM_WORDS.search(self.words):
            return f"Set {section}.system_role=false: the system's text is then sent at the head of the user's."
        told = self.words.lower()
        if "max_completion_tokens" in told and self.parameter != "max_completion_tokens":
            return f"Set {section}.limit_key=max_completion_tokens."
        named = self.parameter or next((name for name in LEAVE_OUT if re.search(rf"\b{name}\b", told)), "")
        name = {"logprobs": "top_logprobs", "max_completion_tokens": "max_tokens"}.get(named, named)
        if name in LEAVE_OUT:
            return f"Set {section}.{name}=null to leave it out, or to a value that the server takes."
        return ""


def refusal(status: int, body: str, otherwise: str = "") -> Refusal:
    """Return the refusal in the body of an answer.

    Args:
        status: Of HTTP.
        body: JSON, HTML or text.
        otherwise: The words if the body has none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Refusal(status, plain_words(body) or otherwise)
    return document_refusal(status, document, otherwise)


def document_refusal(status: int, document: Any, otherwise: str = "") -> Refusal:
    """Return the refusal in a JSON document; an error object may name the status that the answer should have had."""
    found = _error_object(document)
    if not isinstance(found, dict):
        return Refusal(status, short_line(found if isinstance(found, str) else "") or otherwise)
    code, named = "", _number(found.get("code", found.get("status")))
    for each in (_inner(found).get("code"), found.get("code"), found.get("type"), found.get("status")):
        if isinstance(each, str) and not each.isdigit():
            code = each.lower()
            if code in PROMPT_CODES | QUOTA_CODES | PASSING_CODES | SERVER_CODES:
                break
    parameter = found.get("param")
    location = found.get("loc")
    if isinstance(location, list) and location:
        parameter = location[-1]
    words = next((text for name in ("message", "msg", "detail", "title") if (text := found.get(name))), "")
    return Refusal(
        named if status == 200 and 400 <= named < 600 else status,
        short_line(words if isinstance(words, str) else as_text(words)) or code or otherwise,
        code,
        parameter if isinstance(parameter, str) else "",
    )


def plain_words(body: str) -> str:
    """Return the words of a page of HTML or of plain text as one short line."""
    title = re.search(r"<title[^>]*>(.*?)</title>", body[:100_000], re.IGNORECASE | re.DOTALL)
    return short_line(title[1] if title else re.sub(r"<[^>]*>", " ", body[:10_000]))


def short_line(text: str) -> str:
    """Return the beginning of a text as one line that can be printed."""
    return printable(" ".join(text[:10_000].split())[:LONGEST_WORDS].rstrip("."))


def as_text(document: Any) -> str:
    """Return a JSON document as text, or nothing if it is nested too deeply."""
    try:
        return json.dumps(document, default=str)
    except RecursionError:
        return ""


def _error_object(document: Any) -> Any:
    """Return what a document has to say for itself: an object with its words, or a text."""
    for _ in range(4):
        if isinstance(document, list) and document:
            document = document[0]
        elif isinstance(document, dict) and (inner := next(_envelopes(document), None)) is not None:
            document = inner
        else:
            break
    return document


def _envelopes(document: dict[str, Any]) -> Iterator[Any]:
    for name in ("error", "errors", "detail"):
        if isinstance(document.get(name), dict | list | str) and document[name]:
            yield document[name]


def _inner(found: dict[str, Any]) -> dict[str, Any]:
    """Return Azure's inner error, which says more exactly what was filtered."""
    inner = found.get("innererror")
    return inner if isinstance(inner, dict) else {}


def _number(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{3}", value) else 0


def _address_hint(address: str, names: SettingNames) -> str:
    path = urlsplit(address).path
    if not re.search(r"/v\d|/openai", path):
        return f"Most servers want /v1 at its end: {names.address}={address}/v1. Else check {names.model}."
    return (
        f"Check {names.model} and {names.address}, which is the server's address up to and without /chat/completions."
    )
