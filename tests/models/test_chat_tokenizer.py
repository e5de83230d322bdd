"""Messages to ids with the checkpoint's own template, and back to text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gshf_release
from gshf_release.data.records import Message
from gshf_release.errors import CheckpointError
from gshf_release.models.chat_tokenizer import ConversationRenderer, render, response_text, stop_ids
from gshf_release.recipe import Prompts
from tests import nasty, tiny

EOS = 2
ASKED = [Message(role="system", content="be brief"), Message(role="user", content="why is tea good?")]


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    text = tokenizer.decode(render(tokenizer, ASKED))
    assert text == "<|system|>\nbe brief</s>\n<|user|>\nwhy is tea good?</s>\n<|assistant|>\n"


def test_a_prompt_gets_no_second_beginning(tokenizer: Any) -> None:
    assert tokenizer.bos_token_id not in render(tokenizer, ASKED)


def test_a_conversation_holds_its_last_turn(tokenizer: Any) -> None:
    answered = [*ASKED, Message(role="assistant", content="rain")]
    assert tokenizer.decode(ConversationRenderer(tokenizer).ids(answered)).endswith("<|assistant|>\nrain</s>\n")


def test_a_tokenizer_without_template_cannot_render(one_thread: None) -> None:
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(CheckpointError, match="has no chat template"):
        render(bare, ASKED)


def as_transformers(tokenizer: Any, messages: list[Message]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def test_no_other_module_applies_a_template() -> None:
    """One place runs templates, on one date and with errors in one line."""
    package = Path(gshf_release.__file__).parent
    found = {path.name for path in package.rglob("*.py") if ".apply_chat_template(" in path.read_text(encoding="utf-8")}
    assert found == {"chat_template.py"}


def test_there_are_two_hundred_nasty_conversations() -> None:
    assert len({str(conversation) for conversation in nasty.conversations()}) == 200


@pytest.mark.parametrize("name", ["tokenizer", "smollm2_tokenizer"])
def test_nasty_conversations_render_as_in_transformers(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer, rules = request.getfixturevalue(name), Prompts(control_tokens="template")
    for messages in nasty.conversations():
        assert render(tokenizer, messages, rules) == as_transformers(tokenizer, messages), messages


@pytest.mark.parametrize("name", ["tokenizer", "smollm2_tokenizer"])
def test_without_control_tokens_text_and_template_agree(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    for messages in nasty.conversations()[50:]:
        assert render(tokenizer, messages) == as_transformers(tokenizer, messages), messages


@pytest.mark.parametrize("name", ["tokenizer", "smollm2_tokenizer"])
def test_a_control_token_in_a_message_stays_text(name: str, request: pytest.FixtureRequest) -> None:
    """The special ids are those of the same conversation with harmless words, and the text is what was written."""
    tokenizer = request.getfixturevalue(name)
    specials = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    for messages in nasty.with_control_tokens():
        harmless = [Message(role=turn["role"], content="word" if turn["content"] else "") for turn in messages]
        ids = render(tokenizer, messages)
        expected = [token for token in as_transformers(tokenizer, harmless) if token in specials]
        assert [token for token in ids if token in specials] == expected, messages
        for turn in messages:
            assert turn["content"] in tokenizer.decode(ids)


@pytest.mark.parametrize(("bos", "count"), [("template", 0), ("always", 1), ("never", 0)])
def test_the_beginning_is_a_switch(tokenizer: Any, bos: Any, count: int) -> None:
    ids = render(tokenizer, ASKED, Prompts(bos=bos))
    assert ids.count(tokenizer.bos_token_id) == count
    assert (ids[0] == tokenizer.bos_token_id) == bool(count)


def test_a_beginning_of_the_template_is_not_doubled() -> None:
    twice = tiny.tokenizer()
    twice.chat_template = "<s><s>" + tiny.TEMPLATE
    assert render(twice, ASKED, Prompts(bos="always"))[:2] == [twice.bos_token_id, 3]
    assert render(twice, ASKED, Prompts(bos="never"))[0] == 3


def test_an_empty_system_turn_is_a_switch(tokenizer: Any) -> None:
    asked, rules = [Message(role="user", content="why?")], Prompts(empty_system=True)
    assert tokenizer.decode(render(tokenizer, asked, rules)) == "<|system|>\n</s>\n<|user|>\nwhy?</s>\n<|assistant|>\n"
    assert render(tokenizer, ASKED, rules) == render(tokenizer, ASKED)


def test_an_encoder_reads_a_text_pair() -> None:
    class Encoder:
        chat_template = None

        def __call__(self, first: str, second: str) -> dict[str, list[int]]:
            assert (first, second) == ("be brief\nwhy is tea good?", "rain")
            return {"input_ids": [101, 102]}

    answered = [*ASKED, Message(role="assistant", content="rain")]
    assert ConversationRenderer(Encoder()).ids(answered) == [101, 102]


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
