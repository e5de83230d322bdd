"""Tables from hand-made cells."""

from __future__ import annotations

from markdown_it import MarkdownIt

from gshf_release.data.results import Cell
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.report.tables import Table, all_tables, diagnostics_table, evaluation_table, markdown, reported_table
from tests.diagnostics.rows import SECOND, WARM, all_at, gains


def test_the_control_stands_in_a_row_of_its_own() -> None:
    control = Cell(
        table="test", row="base at T=0.3", metric="gain over base", judge=SECOND, decoding=WARM, value=0.1, n=4
    )
    table = evaluation_table([*gains(all_at(0.3)), control], "test")
    assert [row[0] for row in table.rows] == ["iteration-1", "base", "base at T=0.3 (control)"]
    assert table.rows[0][1:5] == ["0.30 ± 0.10"] * 4


def test_missing_cells_are_dashes_and_empty_tables_are_left_out() -> None:
    assert evaluation_table(gains({}), "test").rows[0][1:5] == ["–"] * 4
    assert all_tables([]) == []


def test_a_kl_beyond_best_of_n_stands_below_the_table() -> None:
    place = {"table": "validation", "decoding": "T=1"}
    cells = [Cell(row=row, metric=KL_TO_BASE, value=1.0, **place) for row in ("base", "iteration-1")]
    cells.append(
        Cell(row="iteration-1", metric="best-of-n KL bound", value=0.6, note="log N; EXCEEDED: by far", **place)
    )
    table = diagnostics_table(cells)
    assert [row[:5] for row in table.rows] == [
        ["base", "1.00", "–", "–", "–"],
        ["iteration-1", "1.00", "–", "–", "0.60"],
    ]
    assert table.notes[-1] == "iteration-1: log N; EXCEEDED: by far."


def test_published_numbers_say_where_they_are_from() -> None:
    table = reported_table("fsfairx-zephyr-7b")
    assert "(not measured here)" in table.title
    assert table.rows[-1] == ["iteration-3", "35.95", "34.79", "2275"]
    assert "Judge: gpt-4-1106-preview" in table.notes[0]


def test_cells_of_a_markdown_table_stay_in_their_cell() -> None:
    texts = ["a|b", "c\nd", "`e`", "<f>", "g\\|h", "\\"]
    drawn = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(Table("t", texts, [texts])))
    cells = [token.content for token in drawn if token.type == "inline"]
    assert len(cells) == 2 * len(texts)
    assert "html_inline" not in {child.type for token in drawn for child in token.children or []}
