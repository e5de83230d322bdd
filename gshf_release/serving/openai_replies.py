"""Read what an OpenAI-compatible server answered: every shape and number is checked here, before anything is counted or stored.

    answer = read_chat(body, mask)      # a ChatAnswer, or UnreadableReply that says what came instead

Servers differ: text as a list of parts, thoughts under several names, errors under the status 200, pages of HTML, streams that
nobody asked for. What is no answer costs nothing, except one whose end is missing: the server has worked for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gshf_release.serving.openai_refusals import Refusal, as_text, document_refusal, plain_words, short_line

Mask = Callable[[str], str]
MOST_TOKENS = 10**8
"""A count of tokens beyond this is no count."""
ROUNDED_UP = 1e-3
"""A log-probability up to this is 0 that was rounded; a larger one is none."""
CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""Finish reasons, in small letters, of an answer that a limit of tokens cut."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
"""What servers call a message's thoughts."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """Records what the server answered."""

    text: str
    """What it says, without what it thought."""
    finish_reason: str
    """The server's own: `stop`, `length` if the limit cut it, `content_filter` and others; `stop` if it gives none."""
    prompt_tokens: int
    completion_tokens: int
    """Both 0 if the server does not count, or counts what cannot be."""
    model: str = field(default="", compare=False)
    """What the server says answered, which may be more exact than what was asked for."""
    logprobs: list[dict[str, Any]] | None = field(default=None, compare=False)
    """Per token `{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}`; None if the server gave none."""
    reasoning: str = ""
    """What a reasoning model thought before it answered, where the server gives that apart; never part of `text`."""
    refused: str = field(default="", compare=False)
    """Why there is no text, in the server's or the model's own words."""

    @property
    def cut(self) -> bool:
        """Return whether the limit of tokens ended it."""
        return is_cut(self.finish_reason)


class UnreadableReply(Exception):
    """An answer that is no chat completion.

    `refusal` is what it says, if it is an error object; `charged` if the server may have worked for it; `final` if another try
    would give the same.
    """

    def __init__(
        self, reason: str, *, refusal: Refusal | None = None, charged: bool = False, final: bool = False
    ) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.charged = charged
        self.final = final


def is_cut(finish_reason: str) -> bool:
    """Return whether a finish reason says that the limit of tokens ended the answer."""
    return finish_reason.lower() in CUT


def read_chat(body: bytes, mask: Mask = str) -> ChatAnswer:
    """Return the chat completion in the body of an answer.

    Args:
        body: As it came.
        mask: Takes secrets out of every text.

    Raises:
        UnreadableReply: It is none.
    """
    text = decoded(body)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_json(text, mask, error) from None
    return read_completion(document, mask)


def read_completion(document: Any, mask: Mask = str) -> ChatAnswer:
    """Return the chat completion in a JSON document.

    Raises:
        UnreadableReply: It holds none.
    """
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("error") or choice.get("finish_reason") == "error":
        raise _no_choice(document if choice is None else choice, mask)
    message = choice.get("message")
    if not isinstance(message, dict | None):
        raise UnreadableReply("an answer whose message is no object")
    message = message or {}
    written, thought = _content(message.get("content"))
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    finish_reason, model = choice.get("finish_reason"), document.get("model")
    clean = _cleaner(mask)
    return ChatAnswer(
        text=clean(written),
        finish_reason=clean(finish_reason)[:40] if isinstance(finish_reason, str) and finish_reason else "stop",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        model=clean(model)[:200] if isinstance(model, str) else "",
        logprobs=read_logprobs(choice.get("logprobs"), clean),
        reasoning=clean(thought or _thoughts(message)),
        refused=short_line(clean(_refused(message, finish_reason))),
    )


def decoded(body: bytes) -> str:
    """Return the text of a body, half characters replaced."""
    return body.decode(json.detect_encoding(body), "replace")


def _cleaner(mask: Mask) -> Callable[[str], str]:
    """Return what makes a server's text fit to be stored: no secret in it, and no half of a pair of UTF-16."""
    return lambda text: mask(text.encode("utf-8", "replace").decode("utf-8"))


def _no_json(text: str, mask: Mask, error: Exception) -> UnreadableReply:
    """Return what a body is that is not JSON."""
    start = text.lstrip()
    if start.startswith(("data:", "event:", ": ")):
        return UnreadableReply("an event stream, which was not asked for", final=True)
    if start.startswith("<"):
        return UnreadableReply(f"a page of HTML: {mask(plain_words(text))}")
    if isinstance(error, RecursionError):
        return UnreadableReply("an answer that is nested too deeply to be read")
    if start.startswith(("{", "[")):
        return UnreadableReply("an answer that is no chat completion: its JSON is damaged or cut off", charged=True)
    words = mask(short_line(text))
    return UnreadableReply(
        f"an answer that is no chat completion: {words}" if words else "an empty answer", charged=not words
    )


def _no_choice(document: Any, mask: Mask) -> UnreadableReply:
    """Return what a document is that has no choice to read."""
    errors = isinstance(document, dict) and any(document.get(name) for name in ("error", "errors", "detail", "message"))
    if errors and not (isinstance(document.get("message"), dict) and not document.get("error")):
        found = document_refusal(200, document)
        found = Refusal(found.status, mask(found.words), mask(found.code), mask(found.parameter))
        return UnreadableReply(f"an answer that is {found}", refusal=found)
    shown = mask(short_line(as_text(document)))
    return UnreadableReply(f"an answer that is no chat completion, without choices: {shown}")


def _content(content: Any) -> tuple[str, str]:
    """Return the text of a message's content and the thoughts among its parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise UnreadableReply(f"an answer whose content is neither text nor a list of parts ({type(content).__name__})")
    written: list[str] = []
    thought: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        thinks = isinstance(kind, str) and kind.startswith(("thinking", "reasoning", "thought"))
        (thought if thinks else written).append(_part_text(part))
    return "".join(written), "".join(thought)


def _part_text(part: Any) -> str:
    """Return the text of a part; a part of parts holds another list of them."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    found = next((part[name] for name in ("text", "thinking", "reasoning", "summary") if part.get(name)), "")
    if isinstance(found, list):
        return "".join(str(each.get("text") or "") if isinstance(each, dict) else "" for each in found)
    return found if isinstance(found, str) else ""


def _thoughts(message: Mapping[str, Any]) -> str:
    """Return the thoughts that a server gives beside the text."""
    found = next((text for name in THOUGHTS if isinstance(text := message.get(name), str) and text), "")
    details = message.get("reasoning_details")
    if not found and isinstance(details, list):
        found = "".join(_part_text(part) for part in details)
    return found


def _refused(message: Mapping[str, Any], finish_reason: Any) -> str:
    """Return why a message has no text, in the server's words, if it says so."""
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return f"the model declines: {message['refusal']}"
    if finish_reason == "content_filter":
        return "withheld by the server's content filter"
    if message.get("tool_calls") or message.get("function_call"):
        return "a call of a tool instead of text"
    return ""


def _count(value: Any) -> int:
    """Return a number of tokens, or 0 for what cannot be one."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return int(value) if number else 0


def read_logprobs(found: Any, clean: Callable[[str], str] = str) -> list[dict[str, Any]] | None:
    """Return the log-probabilities of the answer's tokens; servers differ in how they say that there are none.

    Raises:
        UnreadableReply: They are no log-probabilities.
    """
    content = found.get("content") if isinstance(found, dict) else found
    if not content:
        return None
    if not isinstance(content, list):
        raise UnreadableReply("an answer whose log-probabilities are no list", charged=True)
    tokens = [_token(entry, clean) for entry in content]
    _hide_pieces(tokens, clean)
    return tokens


def _token(entry: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    """Return a token with its alternatives; one whose probability is missing, null or -inf is no alternative."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        raise UnreadableReply("an answer whose log-probabilities name no tokens", charged=True)
    alternatives = entry.get("top_logprobs") or []
    if not isinstance(alternatives, list) or not all(
        isinstance(each, dict) and isinstance(each.get("token"), str) for each in alternatives
    ):
        raise UnreadableReply("an answer whose log-probabilities have alternatives that name no tokens", charged=True)
    read = [_plain(each, clean) for each in alternatives]
    return _plain(entry, clean) | {"top_logprobs": [each for each in read if each["logprob"] is not None]}


def _plain(entry: Mapping[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    """Return a token with a finite log-probability of at most 0, or None for none."""
    value = entry.get("logprob")
    if value is None or value == -math.inf:
        value = None
    elif isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= ROUNDED_UP:
        raise UnreadableReply(f"an answer with a log-probability that is none: {str(value)[:20]}", charged=True)
    else:
        value = min(float(value) if value > -1e300 else -1e300, 0.0)
    token = clean(entry["token"])
    octets = entry.get("bytes")
    whole = isinstance(octets, list) and all(type(octet) is int and 0 <= octet < 256 for octet in octets)
    whole = whole and token == entry["token"]  # else they would spell what was taken out
    spelled = {"bytes": octets if whole else None} if "bytes" in entry else {}
    return {**spelled, "logprob": value, "token": token}  # in the order in which the cache gives it back


def _hide_pieces(tokens: list[dict[str, Any]], clean: Callable[[str], str]) -> None:
    """Take out the tokens that together spell a secret."""
    joined = "".join(token["token"] for token in tokens)
    if clean(joined) != joined:
        for token in tokens:
            token |= {"token": "", "top_logprobs": []} | ({"bytes": None} if "bytes" in token else {})
