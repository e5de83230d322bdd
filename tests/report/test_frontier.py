"""The primary endpoint of docs/learning.md: kept runs, pass rates at one divergence, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.records import RuleCheck
from gshf_release.data.results import Cell, find, read_cells, write_cells
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT
from gshf_release.errors import RunError
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.prompts.instruction_prompts import instruction_prompts, write_prompts
from gshf_release.prompts.instruction_rules import TRAINING_RULES
from gshf_release.recipe import Recipe, parse
from gshf_release.report.frontier import CurvePoint, at_divergence, compare, comparison_tables, read_curve
from gshf_release.report.kept import PASSED, keep, read_passed
from gshf_release.run.directory import RunDirectory, write_json
from gshf_release.run.execution import SilentObserver
from tests import tiny
from tests.end_to_end.train_tiny import EXACT, evaluate

EVEN_LENGTH = """
import re
from gshf_release.prompts.instruction_rules import Rule

RULES = [Rule("even", "length", re.compile("about"), lambda response: len(response) % 2 == 0)]
"""
"""A rule that the tiny model, which writes no sentences, keeps now and then."""


def curve(*points: tuple[float, float, list[float]]) -> list[CurvePoint]:
    return [CurvePoint(f"iteration-{number}", *point) for number, point in enumerate(points)]


def test_the_pass_rate_at_a_divergence_lies_between_the_policies_around_it() -> None:
    found = curve((0.0, 0.1, [0, 0]), (2.0, 0.2, [1, 0]), (6.0, 0.3, [1, 1]))
    assert at_divergence(found, 0.0) == [0, 0]
    assert at_divergence(found, 1.0) == [0.5, 0]
    assert at_divergence(found, 3.0) == [1, 0.25]
    assert at_divergence(found, 9.0) == [1, 1], "the largest divergence there is, less than asked for"


def test_the_baseline_is_taken_where_validation_says_that_it_saturates() -> None:
    method = curve((0.0, 0.0, [0, 0, 0, 0]), (4.0, 0.9, [1, 1, 1, 0]))
    baseline = curve((0.0, 0.0, [0, 0, 0, 0]), (2.0, 0.5, [1, 0, 0, 0]), (4.0, 0.4, [1, 1, 1, 1]))
    found = compare(method, baseline)
    assert (found.saturated, found.divergence) == ("iteration-1", 2.0)
    assert (found.method_rate, found.baseline_rate) == (0.375, 0.25)
    # Differences -0.5, 0.5, 0.5, 0: mean 0.125, deviation 0.4787, over the root of four prompts 0.2394.
    assert found.difference.value == 0.125
    assert found.difference.standard_error == pytest.approx(0.23936, abs=1e-5)


def kept(folder: Path, rates: dict[str, tuple[float, float, str]]) -> Path:
    """Write a kept run: `{row: (KL, validation reward, passed)}`."""
    folder.mkdir(parents=True)
    cells = []
    for row, (divergence, reward, _) in rates.items():
        place = {"table": "validation", "row": row, "decoding": "T=1"}
        cells.append(Cell(metric="score", value=reward, judge="reward", **place))
        cells.append(Cell(metric=KL_TO_BASE, value=divergence, **place))
    write_cells(cells, folder / "results.json")
    passed = {row: marks for row, (_, _, marks) in rates.items()}
    write_json(folder / PASSED, {"prompts": ["p", "q"], "by_row": {"T=1": passed}})
    return folder


def test_a_method_is_set_beside_its_baseline_of_the_same_settings(tmp_path: Path) -> None:
    base = {"base": (0.0, 0.1, "00")}
    own = {seed: kept(tmp_path / f"g{seed}", base | {"iteration-1": (2.0, 0.5, "11")}) for seed in (1, 2)}
    once = {1: kept(tmp_path / "o1", base | {"iteration-1": (2.0, 0.4, "10")})}
    once[2] = kept(tmp_path / "o2", base | {"iteration-1": (2.0, 0.4, "00")})
    names = ("GSHF x5, beta 0.1", "offline DPO, beta 0.1", "RAFT x5", "offline DPO, beta 0.3")
    (table,) = comparison_tables(dict(zip(names, (own, once, own, once), strict=True)))
    assert table.title.endswith("GSHF x5, beta 0.1 minus offline DPO, beta 0.1")
    assert table.rows[0] == ["1", "iteration-1", "2.0", "100", "50", "50.0 ± 50.0"]
    assert table.rows[-1] == ["mean", "", "", "", "", "75.0 ± 25.0"]


def test_what_is_kept_of_a_run_says_what_the_run_says(
    one_thread: None, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "even_length.py").write_text(EVEN_LENGTH, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(instruction_prompts(30, 0, TRAINING_RULES), prompts)
    content = tiny.recipe(tiny_folder, reward={"checks": "python:even_length:RULES"}, loop={"iterations": 1})
    content["prompts"] = {"source": str(prompts), "roles": {"per_iteration": 6, "validation": 2, "test": 4}}
    content["base"]["model"] = str(tiny.save_ending(tmp_path / "ending"))
    content["sampling"] |= {"n": 6, "max_new_tokens": 24}
    content["evaluation"] |= {"prompts": None, "temperatures": [0.5]}
    recipe = parse(Recipe, content, "tiny")
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    with pytest.raises(RunError, match="has no checked rules of base"):
        keep(run, tmp_path / "early")
    evaluate(run)
    keep(run, tmp_path / "kept")
    passed = read_passed(tmp_path / "kept")
    checks = RuleCheck.read(*sorted((run.path / "iteration-1/test/reward-scores").glob("**/rule-checks.parquet")))
    expected = {
        prompt: all(check.kept for check in checks if check.prompt_id == prompt and check.decoding == "T=1")
        for prompt in passed.prompts
    }
    assert passed.shares("iteration-1", "T=1") == [float(expected[prompt]) for prompt in passed.prompts]
    rate = find(
        read_cells(tmp_path / "kept" / "results.json"), row="iteration-1", metric=ALL_RULES_KEPT, decoding="T=1"
    )
    assert rate is not None
    assert rate.value == pytest.approx(100 * sum(expected.values()) / len(expected))
    points = read_curve(tmp_path / "kept")
    assert [point.row for point in points] == ["base", "iteration-1"]
    measured = find(read_cells(run.path / "results.json"), table="validation", row="iteration-1", metric=KL_TO_BASE)
    assert measured is not None
    assert points[1].divergence == measured.value
    assert RunDirectory.open(tmp_path / "kept").recipe == recipe
