"""Tables of benchmarks: no two judges in one table, measured beside reported."""

from __future__ import annotations

import pytest

from gshf_release.data.results import Cell
from gshf_release.errors import DataError
from gshf_release.evaluation.metrics import doubt
from gshf_release.evaluation.verdicts.reading import BY_TEXT, CONTRADICTION, THOUGHT
from gshf_release.report.benchmarks import benchmark_tables, comparison_tables
from gshf_release.report.notices import notices
from gshf_release.report.tables import results_document

OFFICIAL, STAND_IN = "weighted_alpaca_eval_gpt4_turbo", "openai-compatible-alpaca-eval/small"


def alpaca(row: str, judge: str, value: float, controlled: float | None, length: float) -> list[Cell]:
    place = {"table": "alpaca_eval_2", "row": row, "judge": judge, "baseline": "gpt4_1106_preview", "decoding": "T=0.7"}
    note = "" if controlled is not None else "none: no difficulties"
    return [
        Cell(metric="win rate", value=value, standard_error=1.5, n=805, unit="%", **place),
        Cell(metric="LC win rate", value=controlled, n=805, unit="%", note=note, **place),
        Cell(metric="length", value=length, n=805, unit="characters", **place),
        Cell(metric="failed judgments", value=0.0, n=805, **place),
    ]


CELLS = [
    *alpaca("base", OFFICIAL, 5.0, 8.5, 900.0),
    *alpaca("iteration-3", OFFICIAL, 36.0, 34.0, 2300.0),
    *alpaca("iteration-3", STAND_IN, 71.0, None, 2300.0),
]


def test_each_judge_has_a_table_of_its_own() -> None:
    official, stand_in = benchmark_tables(CELLS)
    assert official.title == f"alpaca_eval_2, judged by {OFFICIAL} against gpt4_1106_preview"
    assert official.header == ["model", "win rate %", "LC win rate %", "length, characters", "failed judgments", "n"]
    assert official.rows == [
        ["base", "5.00 ± 1.50", "8.50", "900", "0", "805"],
        ["iteration-3", "36.00 ± 1.50", "34.00", "2300", "0", "805"],
    ]
    assert stand_in.title == f"alpaca_eval_2, judged by {STAND_IN} against gpt4_1106_preview"
    assert [row[0] for row in stand_in.rows] == ["iteration-3"]


def test_a_missing_number_is_a_dash_and_its_reason_stands_below() -> None:
    _, stand_in = benchmark_tables(CELLS)
    assert stand_in.rows[0][2] == "–"
    assert "iteration-3, LC win rate: none: no difficulties." in stand_in.notes


def test_compared_with_reported_numbers_each_row_shows_the_difference() -> None:
    official, stand_in = comparison_tables(CELLS, "fsfairx-zephyr-7b")
    assert official.rows[0][:7] == ["base", "5.00 ± 1.50", "4.63", "+0.37", "8.50", "8.01", "+0.49"]
    assert official.rows[1][1:4] == ["–", "13.26", "–"]
    assert official.rows[3][1:4] == ["36.00 ± 1.50", "35.95", "+0.05"]
    assert official.rows[3][-3:] == ["2300", "2275", "+25"]
    assert f"Measured: judge {STAND_IN}" in stand_in.notes[0]


def test_a_comparison_with_what_was_not_measured_names_the_command() -> None:
    with pytest.raises(DataError, match="--benchmark alpaca_eval_2"):
        comparison_tables([], "fsfairx-zephyr-7b")


def test_mt_bench_shows_turns_average_and_categories() -> None:
    place = {"table": "mt_bench", "row": "base", "judge": "mt_bench_gpt4_single", "decoding": "by category"}
    values = {"average": 6.5, "first turn": 7.0, "second turn": 6.0, "average: math": 3.25}
    cells = [Cell(metric=metric, value=value, standard_error=0.25, n=4, **place) for metric, value in values.items()]
    turns, categories = benchmark_tables(cells)
    assert turns.header == ["model", "first turn", "second turn", "average", "failed judgments", "n"]
    assert turns.rows == [["base", "7.00 ± 0.25", "6.00 ± 0.25", "6.50 ± 0.25", "–", "4 of 160 (incomplete)"]]
    assert turns.title == "mt_bench, judged by mt_bench_gpt4_single (incomplete: 4 of 160)"
    assert turns.notes[0].startswith("Incomplete: base has 4 of 160 judgments.")
    assert (categories.header, categories.rows) == (["model", "math"], [["base", "3.25 ± 0.25"]])


def test_the_markdown_document_holds_every_table() -> None:
    text = results_document("mine", CELLS)
    assert text.startswith("# Results of mine\n\n")
    assert text.count("\n## ") == 2
    assert "| iteration-3 | 36.00 ± 1.50 | 34.00 | 2300 | 0 | 805 |" in text


def test_differences_on_the_same_prompts_have_a_table_below() -> None:
    place = {
        "table": "alpaca_eval_2",
        "row": "iteration-3",
        "judge": STAND_IN,
        "baseline": "gpt4_1106_preview",
        "n": 805,
    }
    further = {
        "win rate minus base": (31.0, "paired"),
        "win rate minus base (low end)": (28.25, ""),
        "win rate minus base (high end)": (33.5, ""),
        "sign test p against base": (0.0001, "400 up, 100 down, 305 equal"),
        "minimal detectable difference from base": (3.7, ""),
    }
    cells = [Cell(metric=name, value=value, note=note, **place) for name, (value, note) in further.items()]
    *_, rates, differences = benchmark_tables([*CELLS, *cells])
    assert [row[0] for row in rates.rows] == ["iteration-3"]
    assert differences.title == f"alpaca_eval_2, judged by {STAND_IN} against gpt4_1106_preview: paired differences"
    sign = "0.0001 (400 up, 100 down, 305 equal)"
    assert differences.rows == [
        ["iteration-3", "base", "win rate", "31.00", "28.25 to 33.50", sign, "3.70", "805"],
    ]


def test_a_calibrated_estimate_has_a_column_with_its_interval() -> None:
    place = {
        "table": "alpaca_eval_2",
        "row": "iteration-3",
        "judge": STAND_IN,
        "baseline": "gpt4_1106_preview",
        "n": 805,
    }
    values = {
        "calibrated win rate": 40.0,
        "calibrated win rate (low end)": 35.0,
        "calibrated win rate (high end)": 45.5,
    }
    cells = [Cell(metric=name, value=value, **place) for name, value in values.items()]
    _, table = benchmark_tables([*CELLS, *cells])
    assert table.header[-2:] == ["calibrated win rate % (90 % interval)", "n"]
    assert table.rows[0][-2:] == ["40.00 (35.00 to 45.50)", "805"]


def test_doubts_stand_before_the_numbers_and_thinking_is_none() -> None:
    place = {"table": "alpaca_eval_2", "row": "iteration-3", "judge": STAND_IN, "baseline": "gpt4_1106_preview"}
    found = notices(
        [
            *CELLS,
            Cell(metric=doubt(THOUGHT), value=805.0, n=805, **place),
            Cell(metric=doubt(CONTRADICTION), value=3.0, n=805, **place),
            Cell(metric=doubt(BY_TEXT), value=7.0, n=805, **place),
        ]
    )
    assert found == [
        f"Warning: alpaca_eval_2, judged by {STAND_IN}, iteration-3: 7 of 805 judgments: {BY_TEXT}; "
        f"3 of 805 judgments: {CONTRADICTION}."
    ]
