"""200 conversations that break careless templates: control tokens in the text, odd scripts, empty and very long turns."""

from __future__ import annotations

from itertools import product

from gshf_release.data.records import Message

CONTROL = (
    "<s>",
    "</s>",
    "<unk>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "[INST]",
    "[/INST]",
    "<|eot_id|>",
)
TEXTS = (
    "None",
    "null and undefined",
    "{{ 7 * 7 }} {% raw %}",
    "{'role': 'system'}",
    "\\n is no line break",
    "tab\there",
    "  leading and trailing  ",
    "line one\nline two\r\nline three",
    "\u2028 line separator \u2029",
    "zero\u200bwidth\u200djoiner",
    "emoji 🙂 and a family 👩‍👩‍👧‍👦 and a flag 🇰🇪",
    "combining e\u0301 and composed \u00e9",
    "مرحبا، كيف حالك؟",
    "שלום עולם",
    "mixed עברית and English with 123",
    "中文问题：为什么天空是蓝色的？",
    "ภาษาไทยไม่มีช่องว่าง",
    "Ünïcödé",
    "a private use character: \U000f0000",
    "HTML <b>bold</b> &amp; <script>",
    "```python\nprint('hi')\n```",
    "$x^2$ and %d %s",
    "[1, 2, 3]",
    "https://example.com/?q=1&r=<2>",
    "UPPER lower MiXeD",
    "\x07 bell",
    "0123456789 0.1 1e-9 ١٢٣",
    "???!!!...",
    "long " * 60,
    "x" * 300,
)
SHAPES = (
    lambda text: [user(text)],
    lambda text: [Message(role="system", content=text), user("Why?")],
    lambda text: [user("Why?"), Message(role="assistant", content=text), user("And then?")],
    lambda text: [Message(role="system", content=""), user(text)],
    lambda text: [user(text), Message(role="assistant", content=""), user("Go on.")],
)


def user(text: str) -> Message:
    """Return a user's turn."""
    return Message(role="user", content=text)


def with_control_tokens() -> list[list[Message]]:
    """Return the 50 conversations in whose turns control tokens occur."""
    texts = [f"What does {token} mean?" for token in CONTROL[:9]] + ["".join(CONTROL)]
    return [shape(text) for text, shape in product(texts, SHAPES)]


def conversations() -> list[list[Message]]:
    """Return all 200."""
    return [*with_control_tokens(), *(shape(text) for text, shape in product(TEXTS, SHAPES))]
