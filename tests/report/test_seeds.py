"""The table over seeds: each seed's line and the mean with the standard error across seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.data.results import Cell, read_cells, write_cells
from gshf_release.errors import VerificationError
from gshf_release.report.seeds import (
    all_seed_tables,
    benchmark_seed_tables,
    merge,
    refresh,
    seed_folders,
    seed_table,
    verify_merged,
    write_merged,
)


def gain(value: float, row: str = "iteration-1", judge: str = "reward", decoding: str = "greedy") -> Cell:
    return Cell(
        table="test",
        row=row,
        metric="gain over base",
        value=value,
        standard_error=0.5,
        n=64,
        judge=judge,
        decoding=decoding,
        baseline="base",
    )


def test_the_standard_error_across_seeds_has_its_own_column() -> None:
    table = seed_table({0: [gain(1.0)], 1: [gain(2.0)], 2: [gain(3.0)]})
    assert table.header == ["model", "measure", "seed 0", "seed 1", "seed 2", "mean over seeds", "SE across seeds"]
    assert table.rows == [
        ["iteration-1", "gain, reward, greedy", "1.00 ± 0.50", "2.00 ± 0.50", "3.00 ± 0.50", "2.00", "0.58"]
    ]


def test_the_last_iteration_stands_for_the_others_unless_all_are_wanted() -> None:
    cells = [gain(1.0), gain(2.0, row="iteration-2")]
    assert [row[0] for row in seed_table({0: cells}).rows] == ["iteration-2"]
    assert [row[0] for row in seed_table({0: cells}, every_iteration=True).rows] == ["iteration-1", "iteration-2"]


def test_one_seed_has_no_error_across_seeds() -> None:
    assert seed_table({0: [gain(1.0)]}).rows[0][-2:] == ["1.00", "–"]


def test_the_control_row_is_kept() -> None:
    table = seed_table({0: [gain(1.0), gain(0.5, row="base at T=0.3", decoding="T=0.7")]})
    assert [row[0] for row in table.rows] == ["iteration-1", "base at T=0.3"]


def test_seed_folders_are_in_order_of_the_number(tmp_path: Path) -> None:
    for name in ("seed-10", "seed-2", "seed-x", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text("{}", encoding="utf-8")
    (tmp_path / "seed-3").mkdir()
    assert list(seed_folders(tmp_path)) == [2, 10]


def rating(value: float, row: str) -> Cell:
    place = {"table": "mt_bench", "row": row, "judge": "somebody", "decoding": "by category", "unit": "1-10"}
    return Cell(metric="average", value=value, standard_error=0.2, n=160, **place)


def test_benchmarks_have_the_error_across_training_seeds_too() -> None:
    seeds = {
        seed: [rating(5.0, "base"), rating(5.5, "iteration-1"), rating(6.0 + seed, "iteration-2")] for seed in (0, 1)
    }
    (table,) = benchmark_seed_tables(seeds)
    assert table.title == "mt_bench, judged by somebody, over 2 seeds"
    assert table.rows == [
        ["base", "average", "5.00 ± 0.20", "5.00 ± 0.20", "5.00", "0.00"],
        ["iteration-2", "average", "6.00 ± 0.20", "7.00 ± 0.20", "6.50", "0.50"],
    ]
    (every,) = benchmark_seed_tables(seeds, every_iteration=True)
    assert [row[0] for row in every.rows] == ["base", "iteration-1", "iteration-2"]


def test_a_seed_that_was_not_evaluated_has_a_dash() -> None:
    (table,) = benchmark_seed_tables({0: [rating(6.0, "iteration-1")], 1: []})
    assert table.rows == [["iteration-1", "average", "6.00 ± 0.20", "–", "6.00", "–"]]


def parent(path: Path, values: dict[int, float]) -> Path:
    for seed, value in values.items():
        folder = path / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}", encoding="utf-8")
        write_cells([gain(value)], folder / "results.json")
    return path


def test_the_merge_is_the_mean_with_the_error_across_seeds_apart() -> None:
    (found,) = merge({0: [gain(1.0)], 1: [gain(2.0)], 2: [gain(3.0)]})
    assert (found.value, found.standard_error, found.seeds, found.n) == (2.0, None, 3, 64)
    assert found.standard_error_across_seeds == pytest.approx(0.5773502692)
    assert found.key == gain(1.0).key


def test_what_one_seed_alone_answers_has_no_error_across_seeds() -> None:
    other = gain(5.0, decoding="T=0.7")
    found = merge({0: [gain(1.0)], 1: [gain(2.0), other]})
    assert [(entry.value, entry.seeds, entry.standard_error_across_seeds) for entry in found] == [
        (1.5, 2, 0.5),
        (5.0, 1, None),
    ]


def test_the_merge_is_written_as_json_csv_and_markdown(tmp_path: Path) -> None:
    write_merged(parent(tmp_path / "learn", {0: 1.0, 1: 3.0}))
    (found,) = read_cells(tmp_path / "learn" / "results.json")
    assert (found.value, found.standard_error_across_seeds) == (2.0, 1.0)
    header = (tmp_path / "learn" / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith("seeds,standard_error_across_seeds")
    text = (tmp_path / "learn" / "results.md").read_text(encoding="utf-8")
    assert "| model | measure | seed 0 | seed 1 | mean over seeds | SE across seeds |" in text


def test_a_merge_that_is_not_that_of_its_seeds_is_found(tmp_path: Path) -> None:
    write_merged(parent(tmp_path, {0: 1.0, 1: 3.0}))
    verify_merged(tmp_path)
    write_cells([gain(9.0)], tmp_path / "seed-1" / "results.json")
    with pytest.raises(VerificationError, match="not the merge of its seeds"):
        verify_merged(tmp_path)
    refresh(tmp_path / "seed-1")
    verify_merged(tmp_path)


def test_only_a_parent_that_has_a_merge_is_refreshed(tmp_path: Path) -> None:
    refresh(parent(tmp_path, {0: 1.0, 1: 3.0}) / "seed-0")
    assert not (tmp_path / "results.json").exists()


def test_before_the_evaluation_the_table_is_that_of_the_validation_prompts() -> None:
    cells = [gain(1.0).model_copy(update={"table": "validation"})]
    (table,) = all_seed_tables({0: cells, 1: cells})
    assert table.title == "Over 2 seeds, n = 64 validation prompts each"
    assert table.rows[0][:4] == ["iteration-1", "gain, reward, greedy", "1.00 ± 0.50", "1.00 ± 0.50"]


def test_a_seed_without_an_evaluation_does_not_hide_the_others() -> None:
    (table,) = all_seed_tables({0: [], 1: [gain(1.0)]})
    assert table.rows == [["iteration-1", "gain, reward, greedy", "–", "1.00 ± 0.50", "1.00", "–"]]
