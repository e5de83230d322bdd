"""No piece of a key stays in a text, whatever a server made of it; ordinary text stays as it is."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data.key_masking import Mask, without_password

KEY = "sk-canary0123456789abcdefghijklmnopqrstuv"
MASK = Mask(KEY, "MY_KEY")


@pytest.mark.parametrize(
    "told",
    [
        KEY,
        f"Bearer {KEY}",
        KEY[:32],
        KEY[:8],
        KEY[-8:],
        KEY[10:30],
        f"{KEY[:6]}...{KEY[-4:]}",
        f"{KEY[:5]}**********{KEY[-4:]}",
        f"{KEY[:3]}****{KEY[-4:]}",
        f"{KEY[:9]}…",
        quote(KEY, safe=""),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.urlsafe_b64encode(f"me:{KEY}".encode()).decode(),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        "".join(f"%{ord(letter):02X}" for letter in KEY),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        json.dumps({"key": KEY}),
        KEY.upper(),
        " ".join(KEY),
        f"{KEY[:20]}\n{KEY[20:]}",
        "".join(f"&#{ord(letter)};" for letter in KEY),
        "".join(f"&#x{ord(letter):X};" for letter in KEY),
    ],
)
def test_a_key_is_hidden_whole_cut_and_encoded(told: str) -> None:
    shown = MASK(f"Incorrect API key provided: {told}. See the docs.")
    assert shown.startswith("Incorrect API key provided: ")
    assert shown.endswith(". See the docs.")
    assert "$MY_KEY" in shown
    assert not any(KEY[i : i + 8] in shown for i in range(len(KEY) - 7))
    assert KEY[-4:] not in shown


@given(st.integers(0, len(KEY) - 8), st.integers(8, len(KEY)), st.text(max_size=20))
def test_any_piece_of_eight_characters_is_hidden(start: int, length: int, around: str) -> None:
    piece = KEY[start : start + length]
    shown = MASK(f"{around} {piece} {around}")
    assert "$MY_KEY" in shown
    assert around or piece not in shown


@given(st.text(alphabet="abc [].0123456789\n", max_size=200))
def test_a_text_without_the_key_stays(text: str) -> None:
    assert Mask("sk-QQQQQQQQQQQQQQQQQQQQQQ", "MY_KEY")(text) == text


def test_words_of_a_key_that_is_none_stay() -> None:
    assert Mask("no-key-required", "K")("It is required.") == "It is required."
    assert Mask("no-key-required", "K")("got no-key-required") == "got $K"
    assert Mask("EMPTY", "K")("The set is EMPTY.") == "The set is EMPTY."
    assert Mask("", "K")("anything") == "anything"
    assert Mask("ab12", "K")("ab12 or ab123") == "$K or ab123"


def test_a_mask_does_not_show_its_key() -> None:
    assert KEY not in repr(MASK)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("'http://me:s3cret@host/v1'", "'http://***@host/v1'"),
        ("http://me:p@ss/word@host/v1 x", "http://***@host/v1 x"),
        ("https://host/v1?key=s3cret&a=1", "https://host/v1?***"),
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("write to me@host", "write to me@host"),
    ],
)
def test_passwords_of_addresses_are_left_out(told: str, shown: str) -> None:
    assert without_password(told) == shown
