"""Messages to ids with the checkpoint's own template, and back to text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gshf_release.errors import CheckpointError
from gshf_release.records import Message
from gshf_release.rendering import conversation_ids, render, response_text, stop_ids
from tests import tiny

EOS = 2
ASKED = [Message(role="system", content="be brief"), Message(role="user", content="why is tea good?")]


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    text = tokenizer.decode(render(tokenizer, ASKED))
    assert text == "<|system|>\nbe brief</s>\n<|user|>\nwhy is tea good?</s>\n<|assistant|>\n"


def test_a_prompt_gets_no_second_beginning(tokenizer: Any) -> None:
    assert tokenizer.bos_token_id not in render(tokenizer, ASKED)


def test_a_conversation_holds_its_last_turn(tokenizer: Any) -> None:
    answered = [*ASKED, Message(role="assistant", content="rain")]
    assert tokenizer.decode(conversation_ids(tokenizer, answered)).endswith("<|assistant|>\nrain</s>\n")


def test_a_tokenizer_without_template_cannot_render(one_thread: None) -> None:
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(CheckpointError, match="has no chat template"):
        render(bare, ASKED)


def test_an_encoder_reads_a_text_pair() -> None:
    class Encoder:
        chat_template = None

        def __call__(self, first: str, second: str) -> dict[str, list[int]]:
            assert (first, second) == ("be brief\nwhy is tea good?", "rain")
            return {"input_ids": [101, 102]}

    assert conversation_ids(Encoder(), [*ASKED, Message(role="assistant", content="rain")]) == [101, 102]


@pytest.mark.parametrize(("configured", "expected"), [(2, [2]), ([7, 2], [2, 7]), (None, [2]), ([9], [2, 9])])
def test_stops_are_those_of_tokenizer_and_generation_config(configured: Any, expected: list[int]) -> None:
    assert stop_ids(SimpleNamespace(eos_token_id=2), SimpleNamespace(eos_token_id=configured)) == expected


def test_a_model_that_cannot_stop_is_refused() -> None:
    with pytest.raises(CheckpointError, match="end-of-sequence"):
        stop_ids(SimpleNamespace(eos_token_id=None), SimpleNamespace(eos_token_id=None))


def test_text_comes_without_eos_and_special_tokens(tokenizer: Any) -> None:
    ids = tokenizer(" the cat").input_ids
    assert response_text(tokenizer, [*ids, EOS], [EOS]) == "the cat"
    assert response_text(tokenizer, [4, *ids], [EOS]) == "the cat"
    assert response_text(tokenizer, [EOS], [EOS]) == ""
