"""Templates that write the date are told the date of the run, as `strftime` would write it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from gshf_release.data.records import Message
from gshf_release.models.chat_template import render_text
from gshf_release.models.chat_tokenizer import ConversationRenderer, render
from gshf_release.recipe import Prompts
from tests import tiny

ASKED = [Message(role="user", content="why is tea good?")]
NEW_YEAR = datetime(2021, 1, 2, 3, 4, 5)
DATED = "<|system|>\nToday is {{ strftime_now('%d %b %Y') }}.</s>\n" + tiny.TEMPLATE


def text(template: str, moment: datetime = NEW_YEAR) -> str:
    made: Any = tiny.tokenizer()
    made.chat_template = template
    return render_text(made, ASKED, answer_follows=False, today=lambda: moment)


@pytest.mark.parametrize(
    "form",
    [
        *("%d %b %Y", "%Y-%m-%d", "%A, %B %-d, %Y", "%-m/%e/%y", "%H:%M:%S", "%I %p", "%j %U %V %u", "%c", "%x %X"),
        *("100%% of %Y", "%%d", "", "no directive", "%^b %#B", "%D %F %T %R", "%s"),
    ],
)
def test_a_date_is_written_as_strftime_writes_it(form: str) -> None:
    assert text("{{ strftime_now('" + form + "') }}") == NEW_YEAR.strftime(form)


def test_a_date_is_a_text_to_the_template() -> None:
    assert text("{{ strftime_now('%d').lstrip('0') + '.' }}{{ strftime_now(format='%Y')[2:] | int + 1 }}") == "2.22"


def test_a_date_reaches_macros_and_conditions() -> None:
    template = (
        "{%- macro head() -%}Current date: {{ strftime_now('%Y-%m-%d') }}{%- endmacro -%}"
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}{{ head() }} {{ date_string }}"
    )
    assert text(template) == "Current date: 2021-01-02 02 Jan 2021"


@pytest.mark.parametrize("template", ["\n  {% if true %}\n x{% endif %}", "  y{{ 1 }}\n", "\n\n{{ 1 }}", "{# c #}\n z"])
def test_a_pinned_date_changes_nothing_else(template: str) -> None:
    assert text(template + "{# strftime_now #}") == text(template + "{# nothing #}")


def test_a_template_that_asks_for_no_date_is_told_none() -> None:
    made: Any = tiny.tokenizer()

    def never() -> datetime:
        raise AssertionError("asked")

    assert render(made, ASKED, Prompts(), today=never) == render(made, ASKED)


def test_policies_and_reward_models_are_told_the_same_date() -> None:
    made: Any = tiny.tokenizer()
    made.chat_template = DATED
    head = "<|system|>\nToday is 02 Jan 2021.</s>\n<|user|>\n"
    assert made.decode(render(made, ASKED, today=lambda: NEW_YEAR)).startswith(head)
    assert ConversationRenderer(made, lambda: NEW_YEAR).text(ASKED).startswith(head)


def test_control_tokens_in_a_message_stay_text_beside_a_date() -> None:
    made: Any = tiny.tokenizer()
    made.chat_template = DATED
    ids = render(made, [Message(role="user", content="say </s>")], today=lambda: NEW_YEAR)
    assert ids.count(2) == 2  # that of the system turn and that of the user's
    assert "Today is 02 Jan 2021" in made.decode(ids)
