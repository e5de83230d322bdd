"""The rules that a prompt states: found, checked on hard cases, and written back by the generator."""

from __future__ import annotations

import json
import re

import pytest

from gshf_release.data import assets
from gshf_release.errors import DataError
from gshf_release.prompts.instruction_prompts import TOPICS, instruction_prompts
from gshf_release.prompts.instruction_rules import (
    HELD_OUT_RULES,
    INSTRUCTIONS,
    TRAINING_RULES,
    Check,
    Rule,
    check_rules,
    find_rules,
    is_degenerate,
    named,
    sentences,
    share_kept,
    words,
)

KEPT = [
    ("use-word", 'Use the word "still".', "It is Still here.", True),
    ("use-word", 'Use the word "still".', "Stills are here.", False),
    ("use-word", "Include the word 'don’t' please.", "I don't know it.", True),
    ("use-word", 'Use the word "ice cream".', "I like ice cream here.", True),
    ("use-word", 'Use the word "ice cream".', "Cream on ice is good.", False),
    ("first-word", 'Begin with the word "After".', '"After all, it rains."', True),
    ("first-word", 'Begin with the word "After".', "afterwards it rains a lot", False),
    ("first-word", 'Start with the word "The".', "**The** rain falls.", True),
    ("question-mark-at-end", "End with a question mark.", "Is it rain?  \n", True),
    ("question-mark-at-end", "End with a question mark.", 'Who said "is it rain?"', True),
    ("question-mark-at-end", "End with a question mark.", "Is it rain? Yes.", False),
    ("question-mark-at-end", "End with a question mark.", "下雨了吗 yes no？", True),
    ("exclamation-mark-at-end", "End with an exclamation point.", "What a lot of rain!", True),
    ("exclamation-mark-at-end", "End with an exclamation mark.", "What a lot of rain!?", False),
    ("at-most-words", "Use at most three words.", "Rain falls well-nigh", True),
    ("at-most-words", "Use at most 3 words.", "Rain falls on us.", False),
    ("at-most-words", "Use no more than ten words.", "Rain falls on us.", True),
    ("at-most-words", "Use fewer than four words.", "Rain falls on us.", False),
    ("at-most-words", "Use less than five words.", "Rain falls on us.", True),
    ("at-least-words", "Use at least 4 words.", "Rain falls on us.", True),
    ("at-least-words", "Use more than 4 words.", "Rain falls on us.", False),
    ("at-least-words", "Use no fewer than 5 words.", "Rain — falls - on … us.", False),
    ("lower-case", "Write in lowercase letters only.", "rain falls, ‘even’ on 3 of us.", True),
    ("lower-case", "Write in all lowercase.", "rain falls on Éva", False),
    ("lower-case", "Use only lower-case letters.", "12 34 56", False),
    ("number-in-digits", "Include a number in digits.", "It rains 3 days.", True),
    ("number-in-digits", "Include a number in digits.", "It rains three days.", False),
    ("no-commas", "Use no commas.", "It rains; it pours.", True),
    ("no-commas", "Answer without any commas.", "It rains, it pours.", False),
    ("no-commas", "Avoid commas.", "雨が、降る it rains", False),
    ("last-word", 'End with the word "rain".', "I like the “rain”!!", True),
    ("last-word", 'End with the word "rain".', "I like the trains", False),
    ("avoid-word", 'Do not use the word "the".', "Other rain falls there.", True),
    ("avoid-word", 'Never use the word "the".', "The rain falls there.", False),
    ("use-two-words", 'Use the words "old" and "new".', "New rain on old roads.", True),
    ("use-two-words", 'Use the words "old" and "new".', "News of old roads.", False),
    ("capital-letters", "Write in capital letters only.", "RAIN FALLS 3 TIMES!", True),
    ("capital-letters", "Write in all caps; in upper-case letters.", "RAIN FALLS i say", False),
    ("quotation-marks", "Put the whole answer in double quotation marks.", ' "It rains a lot." ', True),
    ("quotation-marks", "Put the whole answer in double quotation marks.", 'It rains "a lot"', False),
    ("one-comma", "Use exactly one comma.", "Rain, snow and ice.", True),
    ("one-comma", "Use exactly one comma.", "Rain, snow, and ice.", False),
    ("no-digits", "Use no digits.", "It rains four days.", True),
    ("no-digits", "Use no digits.", "It rains on day 4.", False),
    ("letter-frequency", 'Use the letter "r" at least three times.', "Rain rarely falls.", True),
    ("letter-frequency", 'Use the letter "r" at least four times.', "Rain rarely falls.", False),
    ("exact-words", "Use exactly four words.", "It's raining 3.5 hours".replace("3.5", "3-5"), True),
    ("exact-words", "Use exactly 4 words.", "It is raining for hours", False),
    ("exact-sentences", "Write exactly two sentences.", "Dr. Rain came at 3.5. He left!", True),
    ("exact-sentences", "Write exactly two sentences.", "One came. Two came. Three", False),
    ("at-most-sentences", "Use at most two sentences.", "What?! Yes... no doubt", False),
    ("bullet-points", "Give exactly two bullet points.", "* rain falls\n- snow too\n", True),
    ("bullet-points", "Give exactly two bullet points.", "*rain* falls\n- snow too\n", False),
    ("paragraphs", "Write exactly two paragraphs.", "Rain falls here.\n \nSnow too.\n\n", True),
    ("json", "Answer in JSON only.", '```json\n{"rain": ["a", "b", 3]}\n```', True),
    ("json", "Answer in JSON only.", 'Here it is: {"rain": "a b c"}', False),
    ("json", "Answer as valid JSON.", '"rain falls here"', False),
    ("title", "Give a title in double angular brackets.", "<<Rain>>\nIt falls here.", True),
    ("title", "Give a title in double angular brackets.", "<< >> It falls here.", False),
    ("postscript", "Add a postscript that begins with P.S.", "It rains here.\nP.S. And how.", True),
    ("postscript", "Add a postscript that begins with P.S.", "It rains here. P.S. And how.", False),
    ("no-letter", 'Do not use the letter "z".', "It rains Zulus.", False),
    ("topic", "Write one sentence about horse racing.", "Horse-racing is fun.", True),
    ("topic", "Write one sentence about horse racing.", "The horse is not racing.", False),
    ("topic", "Write a short text about berries.", "A berry is red.", True),
    ("topic", "Write one sentence about the weather.", "Weather’s a thing of luck.", True),
    ("one-sentence", "Write one sentence about rain.", "Rain of 3.5 mm fell at St. Ives, e.g. here", True),
    ("one-sentence", "Write one short sentence about rain.", "Rain fell. It did.", False),
]


@pytest.mark.parametrize(("name", "prompt", "response", "kept"), KEPT)
def test_a_rule_is_found_in_its_prompt_and_checked(name: str, prompt: str, response: str, kept: bool) -> None:
    found = [check for check in check_rules(prompt, response, INSTRUCTIONS) if check.rule == name]
    assert [check.kept for check in found] == [kept]


def test_every_kind_of_rule_has_a_case_above() -> None:
    assert {rule.name for rule in INSTRUCTIONS} - {name for name, _, _, _ in KEPT} <= {"at-least-sentences"}


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ('Do not use the word "the".', ["avoid-word"]),
        ("Use no more than ten words.", ["at-most-words"]),
        ("Use not less than ten words.", ["at-least-words"]),
        ("Without commas, and without digits.", ["no-commas", "no-digits"]),
        ('Use the word "a". Use the word "b".', ["use-word", "use-word"]),
        ("What is the use of words? At most a hundred.", []),
        ("Tell me about rain.", []),
        ("", []),
    ],
)
def test_what_a_prompt_states_is_found_once_and_nothing_else(prompt: str, names: list[str]) -> None:
    assert [found.rule.name for found in find_rules(prompt, INSTRUCTIONS)] == names


@pytest.mark.parametrize(
    "response",
    [
        "",
        "   \n",
        "Rain!",
        "rain rain rain rain rain rain rain",
        "it rains a lot it rains a lot it rains a lot it rains a lot",
        "ha ha ha ho ho ho ha ha ha",
        "I shall use the word still in it as told",
        "🙂 🙂 🙂",
    ],
)
def test_a_degenerate_response_keeps_no_rule(response: str) -> None:
    assert is_degenerate(response, ['Use the word "still"'])
    assert [check.kept for check in check_rules('Use the word "still".', response, INSTRUCTIONS)] == [False]


@pytest.mark.parametrize(
    "response",
    [
        "It rains.  Still, the sun shines on the sea and on the land.",
        "The more it rains, the more the rivers rise, and the more the rivers rise, the wetter we are.",
        "Rain is good.",
    ],
)
def test_an_ordinary_response_is_not_degenerate(response: str) -> None:
    assert not is_degenerate(response, ["Use no commas", 'Use the word "still"'])


def test_a_response_that_was_cut_off_keeps_no_rule() -> None:
    checks = check_rules("Use no commas.", "Rain falls on us", INSTRUCTIONS, ended=False)
    assert checks == [Check("no-commas", kept=False)]


def test_the_reward_is_the_share_of_rules_on_the_condition_of_the_required_ones() -> None:
    topic, kept, broken = Check("topic", kept=True, required=True), Check("a", kept=True), Check("b", kept=False)
    assert share_kept([topic, kept, broken]) == 0.5
    assert share_kept([topic, kept, broken], all_or_nothing=True) == 0.0
    assert share_kept([topic, kept, kept], all_or_nothing=True) == 1.0
    assert share_kept([Check("topic", kept=False, required=True), kept, kept]) == 0.0
    assert share_kept([topic]) == 1.0
    assert share_kept([]) == 1.0


def test_words_and_sentences_of_hard_texts() -> None:
    assert words("Well-known: it’s 3.5 _times_ “O'Neil’s”") == ["well-known", "it's", "3", "5", "times", "o'neil's"]
    assert len(sentences('He asked, "Why?" She left. "No." (Yes!) And J. R. Smith, e.g., stayed… or not')) == 6
    assert sentences("...") == []


def test_written_prompts_state_just_the_rules_they_were_written_with() -> None:
    for rules in (TRAINING_RULES, HELD_OUT_RULES, [rule for rule in INSTRUCTIONS if rule.phrase]):
        names = {rule.name for rule in rules}
        for prompt in instruction_prompts(400, 3, rules):
            found = [entry.rule.name for entry in find_rules(prompt, INSTRUCTIONS)]
            assert len(set(found) & names) == len(found) - ("topic" in found) - ("one-sentence" in found) == 2, prompt
            assert "topic" in found
            assert ("one-sentence" in found) == prompt.startswith("Write one sentence")


def test_training_and_held_out_kinds_are_disjoint_and_every_kind_is_drawn_alike() -> None:
    assert not {rule.name for rule in TRAINING_RULES} & {rule.name for rule in HELD_OUT_RULES}
    prompts = instruction_prompts(2000, 0, TRAINING_RULES)
    counts = [sum(bool(rule.pattern.search(prompt)) for prompt in prompts) for rule in TRAINING_RULES]
    assert min(counts) > 0.8 * max(counts)


def test_prompts_are_distinct_seeded_and_prefix_stable() -> None:
    some, more = instruction_prompts(50, 1, TRAINING_RULES), instruction_prompts(80, 1, TRAINING_RULES)
    assert more[:50] == some
    assert len(set(more)) == 80
    assert set(instruction_prompts(50, 2, TRAINING_RULES)) != set(some)


def test_rules_that_give_too_few_prompts_are_refused() -> None:
    only = [rule for rule in TRAINING_RULES if rule.group in ("ending", "commas")]
    assert len(instruction_prompts(8, 0, only, topics=["rain", "snow"])) == 8
    with pytest.raises(DataError, match="no more than about 8 different prompts; 9 are asked for"):
        instruction_prompts(9, 0, only, topics=["rain", "snow"])
    with pytest.raises(DataError, match="2 rules a prompt need as many groups"):
        instruction_prompts(5, 0, TRAINING_RULES[:1])


def test_a_rule_of_ones_own_takes_ten_lines() -> None:
    rule = Rule(
        name="alliteration",
        group="letters",
        pattern=re.compile(r"let every word begin with \"(\w)\"", re.IGNORECASE),
        kept=lambda response, letter: all(word.startswith(letter.casefold()) for word in words(response)),
        phrase='Let every word begin with "{}".',
        draw=lambda draw: (draw.choice("bcmps"),),
    )
    (prompt,) = instruction_prompts(1, 0, [rule], rules_each=1, topics=TOPICS)
    letter = prompt[-3]
    assert [check.kept for check in check_rules(prompt, f"{letter}a {letter}e {letter}o", [rule])] == [True]


def test_a_list_of_rules_is_told_from_anything_else() -> None:
    assert named(list(TRAINING_RULES), "x") == TRAINING_RULES
    with pytest.raises(ValueError, match="x is no list of Rule"):
        named([1], "x")
    with pytest.raises(ValueError, match="two rules called 'no-commas'"):
        named([TRAINING_RULES[-1]] * 2, "x")


@pytest.mark.parametrize(
    ("path", "count", "seed", "rules"),
    [
        ("training/prompts/instructions.jsonl", 2000, 0, TRAINING_RULES),
        ("eval/prompts/unseen-instructions.jsonl", 48, 1, HELD_OUT_RULES),
    ],
)
def test_the_files_of_the_package_are_what_the_generator_writes(
    path: str, count: int, seed: int, rules: tuple[Rule, ...]
) -> None:
    written = [
        json.loads(line)["prompt"] for line in (assets.shipped() / path).read_text(encoding="utf-8").splitlines()
    ]
    assert written == instruction_prompts(count, seed, rules)


def test_the_experiment_has_prompts_that_no_setting_was_chosen_with() -> None:
    def read(name: str) -> list[str]:
        text = (assets.shipped() / "training" / "prompts" / name).read_text(encoding="utf-8")
        return [json.loads(line)["prompt"] for line in text.splitlines()]

    known = set(read("instructions.jsonl"))
    assert read("learn.jsonl") == [
        prompt for prompt in instruction_prompts(800, 100, TRAINING_RULES) if prompt not in known
    ]
