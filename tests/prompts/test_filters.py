"""Rule filters: what each drops, what it leaves, and that it can be switched off."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gshf_release.prompts.filters import RULES, reason_to_drop
from gshf_release.recipe import Filters
from tests.conftest import REPOSITORY

OFF = Filters(
    minimum_words=0,
    maximum_words=0,
    blacklist=(),
    leading_punctuation=False,
    leading_non_ascii=False,
    program_writing=False,
    cut_ending=False,
)
SWITCHES = {
    "too short": {"minimum_words": 3},
    "too long": {"maximum_words": 150},
    "blacklisted word": {"blacklist": Filters().blacklist},
    "leading punctuation": {"leading_punctuation": True},
    "leading non-ASCII": {"leading_non_ascii": True},
    "program writing": {"program_writing": True},
    "cut ending": {"cut_ending": True},
}
DROPPED = [
    ("too short", "Explain tides."),
    ("too long", "Tell me " + "very " * 149),
    ("blacklisted word", "Describe what is in this image."),
    ("blacklisted word", "MAPS of Europe, please: which is best?"),
    ("blacklisted word", "Please go to the shop and report"),
    ("leading punctuation", "- Explain why tea cools"),
    ("leading non-ASCII", "¿Por qué el cielo es azul?"),
    ("program writing", "Write a program that sorts names."),
    ("program writing", "write a Python function to add two numbers"),
    ("cut ending", "Explain the difference between a"),
    ("cut ending", "Translate this sentence:"),
    ("cut ending", "Name three rivers, three lakes and"),
    ("cut ending", "List some ideas for ..."),
]
KEPT = [
    ("too short", "What is HTTPS?"),
    ("too long", "very " * 150),
    ("too short", "日本の首都は"),
    ("blacklisted word", "Why are some people good at imagery and cartography?"),
    ("blacklisted word", "Is a profile a good thing to have?"),
    ("leading punctuation", "¿Por qué el cielo es azul?"),
    ("leading non-ASCII", "Why is the word naïve spelled so?"),
    ("program writing", "Write a fitness program for beginners."),
    ("program writing", "Why would one write a program by hand?"),
    ("cut ending", "What are you waiting for"),
    ("cut ending", "Who wrote Emma?"),
]


@pytest.mark.parametrize(("rule", "text"), DROPPED)
def test_a_rule_drops_and_is_named(rule: str, text: str) -> None:
    assert reason_to_drop(text, OFF.model_copy(update=SWITCHES[rule])) == rule


@pytest.mark.parametrize(("rule", "text"), KEPT)
def test_a_rule_leaves_what_only_looks_like_it(rule: str, text: str) -> None:
    assert reason_to_drop(text, OFF.model_copy(update=SWITCHES[rule])) is None


@pytest.mark.parametrize("text", [text for _, text in DROPPED])
def test_every_rule_can_be_switched_off(text: str) -> None:
    assert reason_to_drop(text, OFF) is None


def test_other_languages_pass_by_default() -> None:
    assert reason_to_drop("Почему небо голубое днём?", Filters()) is None
    assert reason_to_drop("日本で一番高い山は何ですか?", Filters()) is None


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_gets_a_known_answer(text: str) -> None:
    every = Filters(leading_non_ascii=True)
    assert reason_to_drop(text, every) in {None, *RULES}


def test_almost_all_seed_prompts_pass() -> None:
    lines = (REPOSITORY / "training" / "prompts" / "seed.jsonl").read_text(encoding="utf-8").splitlines()
    passed = [reason_to_drop(json.loads(line)["prompt"], Filters()) is None for line in lines]
    assert sum(passed) / len(passed) > 0.9
