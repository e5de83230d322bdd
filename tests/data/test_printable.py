"""Text from outside is shown as text: no character in it is obeyed by a terminal."""

from __future__ import annotations

import json

import pytest

from gshf_release.data.printable import one_line, printable, printable_json
from gshf_release.report.table import Table, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("m\x1b[31mred", r"m\x1b[31mred"),
        ("title\x1b]0;owned\x07", r"title\x1b]0;owned\x07"),
        ("csi \x9b2J", r"csi \x9b2J"),
        ("over\rwritten\x08\x7f", r"over\rwritten\x08\x7f"),
        ("gpj\u202e.exe", r"gpj\u202e.exe"),
        ("half \ud83d", r"half \ud83d"),
        ("模型-α, naïve, 🦙\u200d👩", "模型-α, naïve, 🦙\u200d👩"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_a_terminal_obeys_stands_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_line_has_no_line_end() -> None:
    assert one_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"


def test_json_still_says_the_same() -> None:
    value = {"m\x9b\x1b": ["\u202e", "\x7f", "α\n"]}
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert not any(letter in text for letter in "\x1b\x9b\u202e\x7f")


def test_a_markdown_cell_shows_the_escape() -> None:
    assert escape("m\x1b[31m|red") == r"m\\x1b\[31m\|red"


def test_a_table_on_the_terminal_shows_the_escape(capsys: pytest.CaptureFixture[str]) -> None:
    from gshf_release.cli.terminal import print_table

    print_table(Table("t\x1b[2J", ["model"], [["m\x1b[31mred\n"]], ["note \x9b"]))
    printed = capsys.readouterr().out
    assert r"m\x1b[31mred\n" in printed
    assert not any(letter in printed for letter in "\x1b\x9b")
