"""Turns of conversations as the field's data sets write them: one parser, which refuses what no chat template could show.

A turn is `role` and `content`, or ShareGPT's `from` and `value`. It never loses words: what stands beside its text and cannot
be read (calls of tools, images, thoughts) is refused by name.
"""

from __future__ import annotations

from typing import Any, Final

from gshf_release.data.records import Message

_TOOLS: Final = "calls of tools cannot be shown to the model"
_MEDIA: Final = "only text can be shown to the model"
_PLACE: Final = "its place in the prompt is not known; write it into the prompt's text, or remove the column"
REFUSED = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "tool_call_id", "function_call", "available_tools"), _TOOLS),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos", "image_url", "files"), _MEDIA),
    **dict.fromkeys(("context", "contexts", "document", "documents", "passage", "passages", "background"), _PLACE),
    **dict.fromkeys(("persona", "query", "inputs", "dialogue", "dialog"), _PLACE),
    **dict.fromkeys(("input_ids", "prompt_ids", "chosen_ids", "rejected_ids"), "texts are needed, not token ids"),
}
"""Columns that change what a prompt means and cannot be read: `{name: why}`. A row in which one is not empty is refused."""
THOUGHTS = dict.fromkeys(
    ("reasoning_content", "reasoning", "thinking"), "thoughts beside the answer are not read; write them into `content`"
)
ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "bard", "bing"), "assistant"),
}
"""What a turn's role, or ShareGPT's `from`, is here."""
TOOL_ROLES = ("tool", "tools", "function", "function_call", "tool_call", "tool_response", "observation", "ipython")
KEYS_OF_TURN = (("role", "content"), ("from", "value"))
REFUSED_OF_TURN = {**REFUSED, **THOUGHTS}
TEXT_PARTS = ("text", "input_text", "output_text")


def empty(value: Any) -> bool:
    """Return whether a column's value says nothing: null, NaN, no text but spaces, an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | dict):
        return not value
    return value is None or value != value


def parse_turn(turn: Any, column: str = "messages", extra: list[str] | None = None) -> Message:
    """Return one turn of a conversation: `role` and `content`, or ShareGPT's `from` and `value`.

    Args:
        turn: The turn.
        column: Where it stands, for the error.
        extra: Takes the names of other keys that are not empty, as `messages.id`.

    Raises:
        ValueError: It has no known role or no text, or something that cannot be read.
    """
    if not isinstance(turn, dict):
        raise ValueError(f'every turn needs a "role" and a text under "content"; one under {column!r} is no object')
    who, what = KEYS_OF_TURN["role" not in turn and "from" in turn]
    said, content = turn.get(who), turn.get(what)
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is not None and isinstance(content, str) and len(turn) == 2 and not content.isspace() and content:
        return {"role": role, "content": content}
    _check_keys(turn, column, (who, what), extra)
    if role is None:
        raise ValueError(_no_role(said, column))
    if isinstance(content, list) and content:
        content = "".join(_text_of_part(part, column) for part in content)
    if not isinstance(content, str):
        raise ValueError(
            f'every turn needs a "{who}" and a text under "{what}"; one of the {role} under {column!r} has none'
        )
    if role == "user" and not content.strip():
        raise ValueError(f"a turn of the {role} under {column!r} is empty")
    return {"role": role, "content": content}


def _check_keys(turn: dict[str, Any], column: str, known: tuple[str, str], extra: list[str] | None) -> None:
    """Refuse a turn with something beside its text that cannot be read; collect what else it has."""
    for key, value in turn.items():
        if key in known or empty(value):
            continue
        if (reason := REFUSED_OF_TURN.get(key)) is not None:
            raise ValueError(f"a turn under {column!r} has {key!r}, which cannot be read: {reason}")
        if extra is not None:
            extra.append(f"{column}.{key}")


def _text_of_part(part: Any, column: str) -> str:
    """Return the text of one part of a content that is a list; as in chat templates, nothing stands between two parts."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
        raise ValueError(f"a turn under {column!r} has a part of the type {kind!r}, which cannot be read: {_MEDIA}")
    beside = [key for key, value in part.items() if key not in ("type", "text") and not empty(value)]
    if beside:
        raise ValueError(f"a part of a turn under {column!r} has {beside[0]!r}, which cannot be read: {_MEDIA}")
    return str(part["text"])


def _no_role(said: Any, column: str) -> str:
    if isinstance(said, str) and said in TOOL_ROLES:
        return f"a turn under {column!r} has the role {said!r}, which cannot be read: {_TOOLS}"
    return f"unknown role {said!r} of a turn under {column!r}; known: {', '.join(ROLES)}"
