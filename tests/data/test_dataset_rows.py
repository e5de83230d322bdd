"""Forms of prompts, preferences and answers: the exact messages of every form, one refusal of every kind, no column lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.data import dataset_rows
from gshf_release.data.dataset_files import ColumnUse
from gshf_release.data.dataset_rows import (
    COLUMNS,
    PROMPT_EXAMPLE,
    Preference,
    parse_conversation,
    parse_preference,
    parse_prompt,
    read_rows,
)
from gshf_release.data.file_notices import heard_by
from gshf_release.data.turns import REFUSED, REFUSED_OF_TURN, TOOL_ROLES
from gshf_release.errors import DataError
from gshf_release.prompts.split import read_prompts
from gshf_release.rewards import data as reward_data
from tests.conftest import REPOSITORY

Row = dict[str, Any]


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


SYSTEM, USER, GOOD, BAD = (
    said("system", "be brief"),
    said("user", "why"),
    said("assistant", "a"),
    said("assistant", "b"),
)
FIRST, REPLY = said("user", "hi"), said("assistant", "hello")


def columns(use: ColumnUse) -> dict[str, set[str]]:
    return {"read": set(use.read), "unread": set(use.unread), "empty": set(use.empty)}


# Prompts -------------------------------------------------------------------------------------------------------------
PROMPTS: list[tuple[Row, list[dict[str, str]]]] = [
    ({"prompt": "why"}, [USER]),
    ({"instruction": "why"}, [USER]),
    ({"question": "why"}, [USER]),
    ({"instruction": "Translate:", "input": "the cat", "output": "le chat"}, [said("user", "Translate:\n\nthe cat")]),
    ({"instruction": "why", "input": ""}, [USER]),
    ({"prompt": "Translate:", "input": "the cat"}, [said("user", "Translate:\n\nthe cat")]),
    ({"system": "be brief", "prompt": "why"}, [SYSTEM, USER]),
    ({"system_prompt": "be brief", "question": "why"}, [SYSTEM, USER]),
    ({"system": None, "prompt": "why"}, [USER]),
    ({"instruction": "why", "history": [["hi", "hello"]], "system": "be brief"}, [SYSTEM, FIRST, REPLY, USER]),
    ({"prompt": "why", "history": []}, [USER]),
    ({"prompt": "why", "history": [FIRST, REPLY]}, [FIRST, REPLY, USER]),
    ({"prompt": [USER]}, [USER]),
    ({"prompt": [SYSTEM, FIRST, REPLY, USER]}, [SYSTEM, FIRST, REPLY, USER]),
    ({"prompt": [USER], "system": "be brief"}, [SYSTEM, USER]),
    ({"prompt": [SYSTEM, USER], "system": "be brief"}, [SYSTEM, USER]),
    ({"context_messages": [FIRST, REPLY, USER], "context": "<|user|>why", "source": "x"}, [FIRST, REPLY, USER]),
    ({"messages": [SYSTEM, USER]}, [SYSTEM, USER]),
    ({"messages": [said("system", ""), USER]}, [said("system", ""), USER]),
    ({"messages": [said("system", ""), USER], "system": "be brief"}, [SYSTEM, USER]),
    ({"messages": [USER | {"tool_calls": None, "images": []}]}, [USER]),
    (
        {
            "conversations": [
                {"from": "system", "value": "be brief"},
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "hello"},
                {"from": "human", "value": "why"},
            ]
        },
        [SYSTEM, FIRST, REPLY, USER],
    ),
    ({"prompt": "why", "prompt_id": "1", "messages": [USER, GOOD]}, [USER]),
    ({"prompt": "why", "messages": [SYSTEM, USER, GOOD]}, [SYSTEM, USER]),
    ({"prompt": "why", "messages": [USER, GOOD, FIRST, BAD]}, [USER]),
    ({"prompt": "a  b", "question": "a b"}, [said("user", "a  b")]),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "wh"}, {"type": "text", "text": "y"}]}]},
        [USER],
    ),
]


@pytest.mark.parametrize(
    ("row", "messages"), PROMPTS, ids=lambda value: ",".join(value) if isinstance(value, dict) else ""
)
def test_every_form_of_a_prompt(row: Row, messages: list[dict[str, str]]) -> None:
    assert parse_prompt(row).messages == messages


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
REFUSALS: list[tuple[Row, str]] = [
    ({"input": "the cat"}, "the column 'input' is joined to a text"),
    ({"instruction": " ", "input": "the cat"}, "the column 'input' is joined to a text"),
    ({"prompt": [USER], "input": "the cat"}, "the column 'input' is joined to a text"),
    ({"messages": [USER], "input": "the cat"}, "the column 'input' is joined to a text"),
    ({"prompt": "why", "input": 3}, "expected a text under 'input'"),
    ({"prompt": "why", "system": ["be brief"]}, "expected a text under 'system'"),
    (
        {"messages": [SYSTEM, USER], "system": "be long"},
        r"'system' \('be long'\) contradicts the system turn \('be brief'\)",
    ),
    ({"prompt": "why", "history": [["hi"]]}, "expected pairs of a question and its answer under 'history'"),
    ({"prompt": "why", "history": "hi"}, "expected pairs of a question and its answer under 'history'"),
    ({"prompt": "why", "instruction": "how"}, r"'instruction' \('how'\) contradicts 'prompt' \('why'\)"),
    ({"prompt": "how", "messages": [USER, GOOD]}, r"'messages' \('why'\) contradicts 'prompt' \('how'\)"),
    ({"context_messages": [USER], "context": "something else"}, "the column 'context' cannot be read"),
    ({"prompt": "why", "context": "The sky is blue."}, "the column 'context' cannot be read"),
    (
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{}]}, USER]},
        "'tool_calls', which cannot be read",
    ),
    ({"messages": [USER | {"images": ["x.png"]}]}, "under 'messages' has 'images', which cannot be read"),
    (
        {"messages": [USER, GOOD | {"reasoning_content": "hm"}, USER]},
        "'reasoning_content', which cannot be read: thoughts",
    ),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "a part of the type 'image_url'"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image": "x"}]}]},
        "has 'image', which cannot",
    ),
    (
        {"messages": [{"role": "user", "content": None}]},
        "a text under \"content\"; one of the user under 'messages' has none",
    ),
    ({"messages": [{"role": "user", "content": []}]}, "one of the user under 'messages' has none"),
    ({"messages": [said("user", " "), GOOD, USER]}, "a turn of the user under 'messages' is empty"),
    ({"messages": [USER, {"role": "assistant"}, USER]}, "one of the assistant under 'messages' has none"),
    ({"messages": [{"role": ["user"], "content": "why"}]}, "unknown role"),
    ({"messages": "why"}, "expected a text or turns under 'messages'"),
    ({"messages": [USER, GOOD]}, "the last turn must be the user's"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSALS)
def test_a_prompt_that_would_lose_something_is_refused(row: Row, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_prompt(row)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_column_that_cannot_be_read_is_refused_unless_it_is_empty(name: str) -> None:
    with pytest.raises(ValueError, match=f"the column '{name}' cannot be read"):
        parse_prompt({"prompt": "why", name: ["something"]})
    use = ColumnUse()
    assert parse_prompt({"prompt": "why", name: []}, use).messages == [USER]
    assert columns(use) == {"read": {"prompt"}, "unread": set(), "empty": {name}}


@pytest.mark.parametrize("name", sorted(REFUSED_OF_TURN))
def test_a_turn_with_something_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}', which cannot be read"):
        parse_prompt({"messages": [USER | {name: "something"}]})


@pytest.mark.parametrize("role", TOOL_ROLES)
def test_a_turn_of_a_tool_is_refused_by_its_role(role: str) -> None:
    with pytest.raises(ValueError, match=f"has the role '{role}', which cannot be read"):
        parse_prompt({"messages": [said(role, "12 C"), USER]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{not json", "Expecting"),
        ("[1, 2]", "expected an object, found list"),
        ('{"text": "why?"}', "expected a text or turns under 'prompt', 'instruction' or 'question'"),
        ('{"prompt": 3}', "expected a text or turns under 'prompt'"),
        ('{"prompt": "  "}', "'prompt' is empty"),
        ('{"messages": []}', "'messages' is empty"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "unknown role 'robot'"),
        ('{"messages": [{"role": "user"}]}', 'a text under "content"'),
        ('{"messages": ["hello"]}', 'every turn needs a "role"'),
        ('{"prompt": "a", "prompt": "b"}', "the key 'prompt' stands twice in one object"),
        ('{"prompt": "a\x00"}', "it holds NUL bytes"),
        ('{"prompt": ' + "[" * 3000 + "]" * 3000 + "}", "nested more than 100 deep"),
        ('{"prompt": "a", "n": ' + "9" * 5000 + "}", "integer string conversion"),
    ],
)
def test_a_bad_row_names_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + row + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    line = str(caught.value)
    assert "\n" not in line
    assert "prompts.jsonl:3: " in line
    assert reason in line
    assert PROMPT_EXAMPLE in line


def test_a_missing_prompt_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_prompts(tmp_path / "gone.jsonl")


def test_a_row_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: byte 13 of the line is not UTF-8"):
        read_prompts(tmp_path / "prompts.jsonl")


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1e"])
def test_only_newlines_end_a_row(tmp_path: Path, character: str) -> None:
    """JSON allows some of what `str.splitlines` takes for a line's end to stand unescaped inside a string."""
    path = tmp_path / "prompts.jsonl"
    character = character if character > "\x1f" else f"\\u{ord(character):04x}"
    path.write_text(f'{{"prompt": "one{character}row"}}\n', encoding="utf-8")
    assert len(read_prompts(path)) == 1


def test_windows_line_ends_are_no_part_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n')
    assert [prompt.messages[0]["content"] for prompt in read_prompts(path)] == ["a", "b"]


def test_the_five_examples_of_the_seed_model_are_prompts(tmp_path: Path, test_data: Path) -> None:
    card = test_data / "seed" / "FsfairX-Zephyr-Chat-v0.1.card.txt"
    if not card.is_file():
        pytest.skip(f"{card} is not here; set GSHF_TEST_DATA to the folder that holds seed/")
    rows = [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith('{"prompt"')]
    path = tmp_path / "seed.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = read_prompts(path)
    assert len(found) == 5
    assert found[0].messages == [{"role": "user", "content": json.loads(rows[0])["prompt"]}]


def test_messages_keep_system_and_earlier_turns() -> None:
    turns = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye"},
    ]
    assert parse_prompt({"messages": turns}).messages == turns


def test_prompt_and_messages_name_the_same_conversation() -> None:
    assert parse_prompt({"prompt": "x"}) == parse_prompt({"messages": [{"role": "user", "content": "x"}]})


# Preferences ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "why", "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {
            "prompt": "why",
            "messages": [USER, GOOD],
            "chosen": [USER, GOOD],
            "rejected": [USER, BAD],
            "score_chosen": 8.0,
        },
        {"messages": [USER], "chosen": "a", "rejected": "b"},
        {"messages": [USER], "chosen": [GOOD | {"id": 7}], "rejected": [BAD]},
        {"messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"messages": [USER, GOOD], "chosen": "a", "rejected": "b"},
        {
            "conversations": [{"from": "human", "value": "why"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
    ],
)
def test_every_form_of_a_preference(row: dict[str, Any]) -> None:
    assert parse_preference(row) == Preference([USER], "a", "b")


@pytest.mark.parametrize(
    ("row", "before"),
    [
        ({"system": "be brief", "prompt": "why", "chosen": "a", "rejected": "b"}, [SYSTEM, USER]),
        ({"system": "be brief", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [SYSTEM, USER]),
        ({"prompt": "why", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, [SYSTEM, USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [SYSTEM, USER]),
        (
            {"prompt": "hi", "chosen": [FIRST, REPLY, USER, GOOD], "rejected": [FIRST, REPLY, USER, BAD]},
            [FIRST, REPLY, USER],
        ),
        ({"prompt": "hi", "chosen": [REPLY, USER, GOOD], "rejected": [REPLY, USER, BAD]}, [FIRST, REPLY, USER]),
        (
            {"instruction": "Translate:", "input": "cat", "history": [["hi", "hello"]], "chosen": "a", "rejected": "b"},
            [FIRST, REPLY, said("user", "Translate:\n\ncat")],
        ),
    ],
)
def test_what_stands_before_the_answers_of_a_preference(row: Row, before: list[dict[str, str]]) -> None:
    assert parse_preference(row) == Preference(before, "a", "b")


def test_earlier_turns_are_kept() -> None:
    before = [SYSTEM, USER, GOOD, USER]
    assert parse_preference({"chosen": [*before, GOOD], "rejected": [*before, BAD]}).messages == before


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "a", "rejected": "b"}, "expected a text or turns under 'prompt'"),
        ({"prompt": "why", "chosen": "a"}, "expected a text or turns under 'rejected'"),
        ({"prompt": "why", "chosen": "a", "rejected": " "}, "under 'rejected' must be the assistant's, and not empty"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "'prompt' is empty"),
        ({"prompt": "why", "chosen": [], "rejected": "b"}, "expected a text or turns under 'chosen'"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "answer different conversations"),
        (
            {"prompt": "how", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            r"'chosen' \('why'\) contradicts 'prompt' \('how'\)",
        ),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD], "input": "x"}, "the column 'input' is joined to a text"),
        (
            {"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD], "system": "x"},
            "contradicts the system turn",
        ),
        (
            {"chosen": [USER, GOOD, USER], "rejected": [USER, BAD]},
            "the last turn under 'chosen' must be the assistant's",
        ),
        ({"chosen": [USER, GOOD, GOOD], "rejected": [USER, GOOD, BAD]}, "'chosen' answers no one"),
        ({"prompt": "why", "chosen": [{"role": "judge", "content": "a"}], "rejected": "b"}, "unknown role 'judge'"),
        ({"prompt": "why", "chosen": [{"role": "assistant"}], "rejected": "b"}, "every turn needs"),
        (
            {"prompt": "why", "chosen": [said("assistant", "")], "rejected": "b"},
            "the last turn under 'chosen' must be the assistant's, and not empty",
        ),
        ({"prompt": "why", "chosen": "a", "rejected": "b", "tools": [1]}, "the column 'tools' cannot be read"),
        (
            {"prompt": "why", "chosen": [GOOD | {"tool_calls": [1]}], "rejected": "b"},
            "has 'tool_calls', which cannot be read",
        ),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "expected a text or turns under 'prompt'"),
    ],
)
def test_a_preference_that_is_none(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_preference(row)


def test_a_reward_model_learns_nothing_from_equal_sides() -> None:
    with pytest.raises(ValueError, match="are the same text"):
        reward_data.parse_preference({"prompt": "why", "chosen": "a", "rejected": " a\n"})


# Answers -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, GOOD]},
        {"prompt": "why", "response": "a"},
        {"prompt": [USER], "completion": "a"},
        {"prompt": [USER], "completion": [GOOD]},
        {"instruction": "why", "output": "a", "generator": "somebody"},
        {"messages": [USER], "response": "a"},
        {"prompt": "why", "messages": [USER, GOOD]},
        {"prompt": "why", "response": [USER, GOOD]},
        {"prompt": "why", "response": "a", "messages": [USER, BAD]},
    ],
)
def test_every_form_of_an_answer(row: dict[str, Any]) -> None:
    assert parse_conversation(row) == [USER, GOOD]


@pytest.mark.parametrize(
    ("row", "before"),
    [
        ({"system": "be brief", "prompt": "why", "response": "a"}, [SYSTEM, USER]),
        ({"system": "be brief", "messages": [USER, GOOD]}, [SYSTEM, USER]),
        ({"prompt": [SYSTEM, FIRST, REPLY, USER], "response": [USER, GOOD]}, [SYSTEM, FIRST, REPLY, USER]),
        ({"prompt": "why", "messages": [SYSTEM, USER, GOOD]}, [SYSTEM, USER]),
        ({"prompt": "hi", "messages": [FIRST, REPLY, USER, GOOD]}, [FIRST, REPLY, USER]),
    ],
)
def test_what_stands_before_an_answer(row: Row, before: list[dict[str, str]]) -> None:
    assert parse_conversation(row) == [*before, GOOD]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER]}, "the last turn under 'messages' must be the assistant's"),
        ({"messages": [GOOD]}, "'messages' answers no one"),
        ({"prompt": "why"}, "expected an answer under 'response', 'completion' or 'output'"),
        ({"response": "a"}, "expected a text or turns under 'prompt'"),
        ({"prompt": "how", "response": [USER, GOOD]}, r"'response' \('why'\) contradicts 'prompt' \('how'\)"),
        ({"prompt": "how", "messages": [USER, GOOD]}, r"'messages' \('why'\) contradicts 'prompt' \('how'\)"),
        ({"messages": [USER, said("assistant", "") | {"tool_calls": [1]}, USER, GOOD]}, "has 'tool_calls'"),
    ],
)
def test_an_answer_that_is_none(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_conversation(row)


# Columns -------------------------------------------------------------------------------------------------------------
PARSERS = (parse_prompt, parse_preference, parse_conversation)
WORDS = st.sampled_from(["why", "how", "be brief", " ", "", "a", "b"])
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": WORDS | st.none()},
    optional={"tool_calls": st.lists(WORDS, max_size=1), "id": st.integers(0, 3)},
)
VALUES = WORDS | st.none() | st.integers(0, 3) | st.just(float("nan")) | st.lists(TURN, max_size=4)
VALUES |= st.lists(st.lists(WORDS, min_size=2, max_size=2), max_size=2)
ROWS = st.dictionaries(st.sampled_from([*COLUMNS, "source", "id", "score"]), VALUES, max_size=5)
SOUND = st.fixed_dictionaries(
    {"prompt": st.just("why")},
    optional={
        "system": st.sampled_from(["", "be brief"]),
        "input": st.sampled_from(["", "the cat"]),
        "history": st.sampled_from([[], [["hi", "hello"]]]),
        "messages": st.sampled_from([[USER, GOOD], [SYSTEM, USER], []]),
        "response": st.just("a"),
        "chosen": st.just("a"),
        "rejected": st.just("b"),
        "tools": st.sampled_from([[], None, [1]]),
        "source": WORDS,
    },
)


def words_of(value: Any) -> list[str]:
    """Return every text inside a column."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for each in inner for text in words_of(each)]


@given(row=ROWS | SOUND, parse=st.sampled_from(PARSERS))
def test_no_column_is_neither_read_nor_named_nor_refused(row: Row, parse: Any) -> None:
    use = ColumnUse()
    try:
        found = parse(row, use)
    except ValueError:
        assert not any(columns(use).values())
        return
    counted = columns(use)
    assert {name.partition(".")[0] for names in counted.values() for name in names} == set(row)
    said_of = words_of(found.messages if hasattr(found, "messages") else found)
    for name, kind in ((name, COLUMNS.get(name)) for name in row):
        if kind in ("question", "system", "input", "history", "refused"):
            assert name in counted["read"] | counted["empty"], "what changes the prompt is never only named"
        if kind in ("question", "system", "input", "history") and name in counted["read"]:
            texts = [
                text for text in words_of(row[name]) if text.strip() and text not in ("user", "assistant", "system")
            ]
            assert all(any(text in other for other in said_of) for text in texts), "its words reach the prompt"


def test_the_columns_that_were_not_used_are_named_once(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [
        {"prompt": f"q {number}", "system": "s", "source": "x"} | ({"score": 1} if number else {})
        for number in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said: list[str] = []
    with heard_by(said.append):
        read_prompts(path)
        read_prompts(path)
    assert said == [f"Note: {path}: reads prompt, system; columns not used: source, score (in 2 of 3 rows)."]


def test_usual_columns_need_no_word(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "why"}\n{"messages": [{"role": "user", "content": "how"}]}\n', encoding="utf-8")
    said: list[str] = []
    with heard_by(said.append):
        read_prompts(path)
    assert said == []


def test_a_name_from_the_file_does_not_move_the_cursor(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "why", "a\x1b[31m\n": 1}) + "\n", encoding="utf-8")
    said: list[str] = []
    with heard_by(said.append):
        read_rows(path, parse_prompt, example="{}")
    assert said[0].endswith("columns not used: a\\x1b[31m\\n.")


# Documentation -------------------------------------------------------------------------------------------------------
PAGE = REPOSITORY / "docs" / "data.md"


@pytest.mark.parametrize(("part", "parse"), zip(("Prompts", "Preferences", "Answers"), PARSERS, strict=True))
def test_the_documented_forms_are_read_as_documented(part: str, parse: Any) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"## {part}\n")[2]
    lines = re.search(r"```json forms\n(.*?)```", section, re.DOTALL)[1].splitlines()  # type: ignore[index]
    assert len(lines) >= 8
    for row, turns in zip(lines[::2], lines[1::2], strict=True):
        found = parse(json.loads(row))
        if isinstance(found, Preference):
            shown = [*found.messages, said("chosen", found.chosen), said("rejected", found.rejected)]
        else:
            shown = found.messages if parse is parse_prompt else found
        assert [[turn["role"], turn["content"]] for turn in shown] == json.loads(turns), row


def test_the_page_names_every_column_that_is_read() -> None:
    text = PAGE.read_text(encoding="utf-8")
    read = [name for name, kind in COLUMNS.items() if kind != "refused"]
    assert [name for name in [*read, *dataset_rows.TURNS] if f"`{name}`" not in text] == []
