"""Chat templates of every bad kind are told by marked words before any work, and good ones pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import TemplateError
from gshf_release.models.chat_template_checks import (
    answer_ends,
    check_policy,
    check_reward,
    check_turn_end,
    marked,
    template_place,
)
from gshf_release.models.chat_tokenizer import render
from gshf_release.recipe import Prompts
from tests import tiny

LOOP = "{% for m in messages %}BODY{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
TURN = "<|{{ m.role }}|>\n{{ m.content }}</s>\n"
NO_SYSTEM = LOOP.replace(
    "BODY", "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURN
)
DROPS_SYSTEM = LOOP.replace("BODY", "{% if m.role != 'system' %}" + TURN + "{% endif %}")
LISTS = "<|{{ m.role }}|>{% if m.content is not string %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}</s>"


def told(template: str | dict[str, str], bos: str = "<s>") -> Any:
    """Return the tiny tokenizer with a template."""
    made = tiny.tokenizer()
    made.chat_template, made.name_or_path = template, "here"
    return made


def refusal(template: Any, *, system: bool = False, rules: Prompts | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        check_policy(told(template), "here/chat_template.jinja", rules or Prompts(), system=system)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        tiny.TEMPLATE,
        LOOP.replace("BODY", "<|{{ m.role }}|>\n{{ m.content | trim }}</s>\n"),
        LOOP.replace("BODY", "<|{{ m.role }}|>\n{% generation %}{{ m.content }}{% endgeneration %}</s>\n"),
        "{{ strftime_now('%d %b %Y') }}" + tiny.TEMPLATE,
        "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}" + tiny.TEMPLATE,
        {"default": tiny.TEMPLATE, "tool_use": "{% for tool in tools %}{{ tool }}{% endfor %}"},
        LOOP.replace("BODY", "{{ m.role }}:{% for line in m.content.split('\n') %}{{ line }}\n{% endfor %}</s>"),
    ],
)
@pytest.mark.parametrize("system", [False, True])
def test_a_template_that_keeps_every_word_passes(template: Any, system: bool) -> None:
    check_policy(told(template), "here", Prompts(), system=system)
    check_reward(told(template), "here")


def test_a_strict_template_passes_where_no_system_turn_comes() -> None:
    check_policy(told(tiny.STRICT_TEMPLATE), "here", Prompts(), system=False)
    check_reward(told(tiny.STRICT_TEMPLATE), "here")  # reward models read the system text in the user's turn


def test_content_as_a_list_of_parts_alone_is_named() -> None:
    found = refusal(LOOP.replace("BODY", LISTS))
    assert found == (
        "The chat template here/chat_template.jinja loses words: none of the words of the user's earlier turn reach the "
        "model; it renders content given as a list of parts alone, as templates of vision models do. Give the base another "
        "chat_template.jinja, one that writes message['content'] of every turn."
    )
    with pytest.raises(TemplateError, match="list of parts alone"):
        check_reward(told(LOOP.replace("BODY", LISTS)), "here")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("<|user|>\n{{ messages[-1].content }}</s>\n<|assistant|>\n", "none of the words of the user's earlier turn"),
        (
            "<|user|>\n{{ messages[0].content }}</s>\n<|assistant|>\n",
            "none of the words of the assistant's earlier turn",
        ),
        (LOOP.replace("BODY", "{{ m.content | upper }}"), "none of the words of the user's earlier turn"),
        (LOOP.replace("BODY", "{{ m.content[:4000] }}"), "of 2,000 words of the user's earlier turn"),
        (LOOP.replace("BODY", "{{ m.content | truncate(9000) }}"), "of 2,000 words of the user's earlier turn"),
        (LOOP.replace("BODY", "{{ m.content | e }}"), "only 1,400 of 2,000 words"),  # "…", &… and <b>…
        (LOOP.replace("BODY", "{{ m.content | striptags }}"), "only 1,800 of 2,000 words"),
        (LOOP.replace("BODY", "{{ m.content.split('\n')[0] }}"), "only 12 of 2,000 words"),
        (LOOP.replace("BODY", "{% if m.role == 'user' %}{{ m.content }}{% endif %}"), "the assistant's earlier turn"),
        (LOOP.replace("BODY", "{{ m.text }}"), "none of the words"),
        ("{{ bos_token }}", "none of the words"),
    ],
)
def test_lost_words_are_counted_and_their_turn_is_named(template: str, words: str) -> None:
    assert words in refusal(template)
    assert "Give the base another chat_template.jinja" in refusal(template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}\n{{ m.content }}{% endfo %}",
            "is no valid Jinja: line 2 ({{ m.content }}{% endfo %}):",
        ),
        ("{{ strftime_now('%Y') }}\n{% for %}", "line 2 ({% for %})"),
        (LOOP.replace("BODY", "{{ m.content[0]['text'] + '!' }}"), "'str object' has no attribute 'text'"),
        ("a\n{% for tool in tools %}{% endfor %}", "line 2 ({% for tool in tools %}{% endfor %}): 'NoneType' object"),
        ("{{ now() }}", "line 1 ({{ now() }}): 'now' is undefined"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ''.__class__ }}{{ ''.__class__.__mro__ }}", "unsafe"),
        (
            "{{ raise_exception('first\nsecond') }}",
            "refuses a conversation of the turns user, assistant, user: first second",
        ),
        ("{{ raise_exception('') }}", "refuses a conversation"),
        ({"rag": tiny.TEMPLATE}, "multiple chat templates with no default"),
        (
            "{% if messages | length > 1 %}{{ raise_exception('One turn only') }}{% endif %}" + tiny.TEMPLATE,
            "One turn only",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ messages | nope }}", "no valid Jinja: line 1 ({{ messages | nope }}): No filter named 'nope'"),
    ],
)
def test_whatever_a_template_raises_is_one_line(template: Any, words: str) -> None:
    assert words in refusal(template)


def test_a_template_for_tools_says_which_one_is_wanted() -> None:
    assert "the chat_template.jinja for plain conversations" in refusal("{% for tool in tools %}{% endfor %}")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NO_SYSTEM, "turns system, user, assistant, user: System role not supported. Set prompts.fold_system"),
        (DROPS_SYSTEM, "none of the words of the system turn reach the model. Set prompts.fold_system"),
        (tiny.STRICT_TEMPLATE, "alternate user/assistant/user/assistant/. Set prompts.fold_system"),
    ],
)
def test_a_template_without_system_turn_is_told_where_there_is_one(template: str, reason: str) -> None:
    check_policy(told(template), "here", Prompts(), system=False)
    assert reason in refusal(template, system=True)
    check_policy(told(template), "here", Prompts(fold_system=True), system=True)


def test_a_folded_system_turn_is_the_first_paragraph_of_the_first_user_turn() -> None:
    asked: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    made = told(NO_SYSTEM)
    assert (
        made.decode(render(made, asked, Prompts(fold_system=True))) == "<|user|>\nbe brief\n\nwhy?</s>\n<|assistant|>\n"
    )
    assert render(made, asked[1:], Prompts(fold_system=True)) == render(made, asked[1:])


def test_marked_words_come_once_and_nowhere_else() -> None:
    words = [word for turn in marked(["system", "user", "assistant"]) for word in turn["content"].split()]
    assert len(words) == len(set(words)) == 6000


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (LOOP.replace("BODY", TURN), "</s>"),
        (
            LOOP.replace("BODY", "<|{{ m.role }}|>\n{{ m.content }}\n"),
            "<|user|>",
        ),  # the next turn's beginning, as GLM-4
    ],
)
def test_the_control_token_after_an_answer_is_found(template: str, token: str) -> None:
    made = told(template)
    assert made.convert_ids_to_tokens(answer_ends(made))[:1] == [token]
    assert check_turn_end(made, "here", answer_ends(made)[:1]) == ""


def test_an_end_that_no_engine_stops_at_is_refused_with_the_list_that_would_do() -> None:
    made = told(LOOP.replace("BODY", "<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n"))
    made.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    end = made.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(
        TemplateError, match=r"'<\|im_end\|>' \(token \d+\), which is no stop token \('</s>'\)"
    ) as caught:
        check_turn_end(made, "here", [2])
    assert f"Set eos_token_id to [2, {end}]" in str(caught.value)
    assert check_turn_end(made, "here", [2, end]) == ""


def test_an_end_that_is_not_marked_special_counts_too() -> None:
    from tokenizers import AddedToken

    made = told(LOOP.replace("BODY", "<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n"))
    made.add_tokens([AddedToken("<|im_end|>", special=False, normalized=False)])
    with pytest.raises(TemplateError, match="no stop token"):
        check_turn_end(made, "here", [2])


def test_two_closing_tokens_need_one_that_stops() -> None:
    """Command R7B closes the answer and then the turn; only the second is its EOS."""
    made = told(LOOP.replace("BODY", "{{ m.content }}<|user|></s>"))
    assert made.convert_ids_to_tokens(answer_ends(made)) == ["<|user|>", "</s>"]
    assert check_turn_end(made, "here", [2]) == ""


def test_an_answer_without_any_end_is_a_warning() -> None:
    assert "no control token" in check_turn_end(
        told("{% for m in messages %}{{ m.content }}\n{% endfor %}"), "here", [2]
    )


def test_the_place_of_a_template_is_its_file(tmp_path: Path) -> None:
    assert template_place(tmp_path) == str(tmp_path / "tokenizer_config.json")
    (tmp_path / "chat_template.jinja").write_text("x", encoding="utf-8")
    assert template_place(tmp_path) == str(tmp_path / "chat_template.jinja")
    gguf = tmp_path / "m.gguf"
    assert template_place(gguf) == str(tmp_path / "chat_template.jinja")
    (tmp_path / "m.jinja").write_text("x", encoding="utf-8")
    assert template_place(gguf) == str(tmp_path / "m.jinja")
