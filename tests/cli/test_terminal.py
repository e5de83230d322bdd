"""What the terminal shows of a table is what results.md says: one definition, the same names and texts."""

from __future__ import annotations

import re

import pytest

from gshf_release.cli.terminal import print_table
from gshf_release.data.results import Cell
from gshf_release.report.table import Table, markdown
from gshf_release.report.tables import all_tables, results_document

BRACKETS = "judge [beta] of [/owner]"


def evaluated() -> list[Cell]:
    place = {"row": "iteration-1", "decoding": "T=0.7", "standard_error": 0.5, "n": 4}
    gains = [
        Cell(table=table, metric="gain over base", judge=judge, value=1.25, baseline="base", **place)
        for table in ("test", "eval", "validation")
        for judge in ("reward", "second-scorer")
    ]
    return [*gains, Cell(table="training", row="iteration-1", metric="pairs", value=7)]


def printed(table: Table, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return the texts of the header and the rows as they stand on the terminal."""
    print_table(table)
    lines = [line for line in capsys.readouterr().out.splitlines() if re.search("[┃│]", line)]
    return [[part.strip() for part in re.split("[┃│]", line.strip("┃│"))] for line in lines]


def test_the_report_has_the_tables_and_columns_of_results_md(capsys: pytest.CaptureFixture[str]) -> None:
    text = results_document("made", evaluated())
    tables = all_tables(evaluated())
    assert len(tables) >= 3
    for table in tables:
        header, *rows = printed(table, capsys)
        assert header == table.header
        assert rows == table.rows
        assert f"## {table.title}" in text
        assert "| " + " | ".join(header) + " |" in text


def test_texts_in_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("t", ["model", BRACKETS], [["a", BRACKETS]], [BRACKETS])
    assert printed(table, capsys) == [["model", BRACKETS], ["a", BRACKETS]]
    assert r"judge \[beta\] of \[/owner\]" in markdown(table), "which Markdown shows as they are"


def test_a_wide_table_is_not_cut_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    header = ["model", *(f"a rather long name of column {number}" for number in range(12))]
    table = Table("t", header, [[str(number) for number in range(13)]])
    assert printed(table, capsys) == [header, table.rows[0]]
