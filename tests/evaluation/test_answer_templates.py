"""Prompts of benchmarks: FastChat's templates are FastChat's, to the character and to the id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.records import Message
from gshf_release.errors import RecipeError
from gshf_release.evaluation.answer_templates import FastChatTemplate, check, template
from gshf_release.models.chat_tokenizer import render
from gshf_release.recipe import Prompts
from tests import tiny

ASKED = [
    Message(role="user", content="Why is tea good?"),
    Message(role="assistant", content="It cools in a cup."),
    Message(role="user", content="And rain?"),
]


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny.tokenizer()


def fastchat_prompt(name: str) -> str:
    from fastchat.conversation import get_conv_template

    conversation = get_conv_template(name)
    first, second = conversation.roles
    for role, text in ((first, ASKED[0]), (second, ASKED[1]), (first, ASKED[2])):
        conversation.append_message(role, text["content"])
    conversation.append_message(second, None)
    return conversation.get_prompt()


@pytest.mark.parametrize("name", ["zephyr", "mistral", "vicuna_v1.1", "one_shot"])
def test_a_named_template_gives_fastchats_own_prompt(name: str, words: Any) -> None:
    own = FastChatTemplate(words, name)
    assert own.prompt(ASKED) == fastchat_prompt(name)
    assert own.ids(ASKED) == words([fastchat_prompt(name)]).input_ids[0]


def test_zephyr_keeps_its_empty_system_block(words: Any) -> None:
    text = FastChatTemplate(words, "zephyr").prompt(ASKED[:1])
    assert text == "<|system|>\n</s>\n<|user|>\nWhy is tea good?</s>\n<|assistant|>\n"


def test_a_system_turn_takes_the_place_of_the_templates_own(words: Any) -> None:
    system = Message(role="system", content="Be brief.")
    text = FastChatTemplate(words, "zephyr").prompt([system, *ASKED[:1]])
    assert text.startswith("<|system|>\nBe brief.</s>\n<|user|>\n")


def test_without_a_name_the_tokenizers_own_template_is_used_under_the_recipes_rules(words: Any) -> None:
    rules = Prompts(empty_system=True, bos="always")
    assert template(None, words, rules).ids(ASKED) == render(words, ASKED, rules)


def test_an_answer_ends_at_the_templates_stop_text_but_not_at_its_beginning(words: Any) -> None:
    own = FastChatTemplate(words, "one_shot")  # stops at ###, has no stop id
    assert own.text(words(" the cat### Human: on").input_ids, [2]) == "the cat"
    assert own.text(words("### the cat").input_ids, [2]) == "### the cat"


def test_an_answer_ends_at_a_stop_id_and_holds_no_special_tokens(words: Any) -> None:
    own = FastChatTemplate(words, "zephyr")
    ids = [*words("the cat").input_ids, 2, *words("sat").input_ids]
    assert own.text(ids, [2]) == "the cat"
    assert own.text([1, *words(" tea ").input_ids], [2]) == "tea"


def test_a_template_of_another_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean fastchat:zephyr\?"):
        check("fastchat:zefyr")
    with pytest.raises(RecipeError, match="name one of FastChat's, such as fastchat:zephyr"):
        check("zephyr")


def test_a_checkpoint_is_never_matched_by_its_name(tmp_path: Path, words: Any) -> None:
    words.name_or_path = str(tmp_path / "mistral-7b-zephyr")
    assert template(None, words, Prompts()).ids(ASKED) == render(words, ASKED)
