"""Tables and verdicts from hand-made cells."""

from __future__ import annotations

from markdown_it import MarkdownIt

from gshf_release.diagnostics.verdict import verdict
from gshf_release.logprobs import KL_TO_BASE
from gshf_release.report.tables import Table, all_tables, diagnostics_table, evaluation_table, markdown, reported_table
from gshf_release.results import Cell

Gains = dict[tuple[str, str], tuple[float, float]]
REWARD, SECOND = "reward", "second-scorer"
GREEDY, WARM = "greedy", "T=0.7"


def gains(values: Gains, *, length: float = 10.0, over_control: float | None = None) -> list[Cell]:
    """Return the cells of one iteration: `{(judge, decoding): (gain, standard error)}`."""
    place = {"table": "test", "metric": "gain over base"}
    cells = [
        Cell(row="iteration-1", judge=judge, decoding=decoding, value=value, standard_error=error, n=4, **place)
        for (judge, decoding), (value, error) in values.items()
    ]
    for row, value in (("base", 10.0), ("iteration-1", length)):
        cells.append(Cell(table="test", row=row, metric="length", decoding=WARM, value=value))
    for judge in (REWARD, SECOND) if over_control is not None else ():
        place["metric"] = "gain over control"
        cells.append(
            Cell(row="iteration-1", judge=judge, decoding=WARM, value=over_control, standard_error=0.1, **place)
        )
    return cells


def all_at(value: float) -> Gains:
    return {(judge, decoding): (value, 0.1) for judge in (REWARD, SECOND) for decoding in (GREEDY, WARM)}


def test_a_gain_everywhere_is_learning() -> None:
    assert verdict(gains(all_at(0.3))) == (
        "iteration-1 learned: it is better than the base under both scorers, greedily and at T=0.7. Gains beyond two standard "
        "errors: training reward greedily, training reward at T=0.7, second scorer greedily, second scorer at T=0.7."
    )


def test_two_standard_errors_are_not_beyond_two_standard_errors() -> None:
    assert "shows no gain beyond two standard errors" in verdict(gains(all_at(0.2)))


def test_a_gain_that_a_lower_temperature_reaches_is_sharpening() -> None:
    values = all_at(0.3) | {(REWARD, GREEDY): (0.0, 0.1)}
    assert "iteration-1 sharpened" in verdict(gains(values, over_control=0.1))
    assert "second scorer greedily" in verdict(gains(values, over_control=0.1))


def test_a_gain_beyond_the_sharpened_base_is_learning() -> None:
    values = all_at(0.3) | {(SECOND, GREEDY): (0.0, 0.1)}
    assert "than the base sharpened by a lower temperature" in verdict(gains(values, over_control=0.3))


def test_a_gain_under_the_second_scorer_alone_is_said_so() -> None:
    values = all_at(0.0) | {(SECOND, GREEDY): (0.3, 0.1)}
    assert "under the second scorer only" in verdict(gains(values))


def test_a_mixed_gain_lists_where() -> None:
    values = all_at(0.0) | {(SECOND, GREEDY): (0.3, 0.1), (REWARD, WARM): (0.3, 0.1)}
    found = verdict(gains(values))
    assert "gained in part" in found
    assert "training reward at T=0.7, second scorer greedily." in found


def test_shorter_answers_are_mentioned() -> None:
    assert "0.50 times as long" in verdict(gains(all_at(0.3), length=5.0))


def test_a_gain_under_the_training_reward_alone_is_not_confirmed() -> None:
    values = all_at(0.3) | {(SECOND, GREEDY): (0.0, 0.1), (SECOND, WARM): (0.0, 0.1)}
    assert "the second scorer does not confirm it" in verdict(gains(values))


def test_a_loss_is_no_gain() -> None:
    assert "shows no gain" in verdict(gains(all_at(-1.0)))


def test_longer_answers_are_mentioned() -> None:
    assert verdict(gains(all_at(0.3), length=20.0)).endswith("Its answers are 2.00 times as long as the base's.")
    assert "as long" not in verdict(gains(all_at(0.3), length=11.0))


def test_nothing_evaluated_is_said_so() -> None:
    assert verdict([]) == "No iteration was evaluated."


def test_a_gain_without_a_standard_error_is_not_significant() -> None:
    cells = [cell.model_copy(update={"standard_error": None}) for cell in gains(all_at(9.0))]
    assert "shows no gain" in verdict(cells)


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
