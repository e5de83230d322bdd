"""What a run says of prompts that are too close to a benchmark's, and of benchmarks that it could not look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gshf_release.data.results import Cell, find, read_cells
from gshf_release.prompts import contamination, split
from gshf_release.prompts.contamination import CONTAMINATED, FACTS, STAGE, compare, declare_contamination
from gshf_release.prompts.usage import PromptUse
from gshf_release.report.tables import results_document
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from tests.prompts import benchmarks
from tests.run.plans import PROFILES, Heard, begin, recipe

KNOWN = "Which of the planets in our solar system has the shortest day of all?"
OTHERS = [f"question {number} about {word}?" for number, word in enumerate(["tea", "rain", "gold"] * 6)]
SIX = [
    "Why does bread rise?",
    "Name three rivers of Africa.",
    "How tall was Napoleon?",
    "Translate good morning into Finnish.",
    "Explain compound interest to a child.",
    "Who painted the ceiling in Rome?",
]
COUNTS = {"per_iteration": 6, "validation": 3, "test": 4}


@pytest.fixture(autouse=True)
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a benchmark of one prompt under the name alpaca-eval; mt-bench is nowhere."""
    return benchmarks.give(tmp_path, monkeypatch, KNOWN)


def looked(folder: Path, prompts: list[str], observer: Heard | None = None) -> RunDirectory:
    """Return a run whose prompts are divided and compared."""
    source = folder / "prompts.jsonl"
    source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts), encoding="utf-8")
    chosen = recipe(prompts={"source": str(source), "roles": COUNTS}, loop={"iterations": 1})
    run = begin(folder / "run", chosen)
    stages = [
        *split.declare_prompts(chosen, split.PoolParameters(source_sha256="0" * 64, count=len(prompts))),
        split.declare_used(chosen),
        declare_contamination(),
    ]
    execute(stages, run, chosen, PROFILES["here"], observer=observer or Heard())
    return run


def cell(run: RunDirectory, name: str) -> Cell:
    found = find(read_cells(run.results(declare_contamination())), metric=f"too close to {name}")
    assert found is not None
    return found


def test_a_prompt_of_a_benchmark_is_counted_with_its_role_and_what_it_is_too_close_to(tmp_path: Path) -> None:
    """All 13 prompts have a role, so the copy has one, whichever the seed gave it."""
    run = looked(tmp_path, [*OTHERS[:12], KNOWN.upper()])
    (found,) = json.loads((run.path / STAGE / FACTS).read_text(encoding="utf-8"))["found"]
    roles = {row.prompt_id: row.role for row in PromptUse.read(run.path / "prompts" / "used" / "used.parquet")}
    assert found["role"] == roles[found["prompt_id"]]
    assert (found["reason"], found["of"]) == ("benchmark: same words", "alpaca-eval/0")
    assert (cell(run, "alpaca-eval").value, cell(run, "alpaca-eval").n) == (1, 13)
    assert cell(run, "alpaca-eval").note == "alpaca-eval/0"


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more")])
def test_a_cell_names_five_prompts_of_a_benchmark_and_counts_the_others(
    count: int, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "six").mkdir()
    benchmarks.give(tmp_path / "six", monkeypatch, *SIX)
    found = cell(looked(tmp_path, [*SIX[:count], *OTHERS[: 13 - count]]), "alpaca-eval")
    assert found.value == count
    assert found.note == ", ".join(f"alpaca-eval/{number}" for number in range(5)) + more


def test_a_benchmark_whose_file_is_missing_is_said_in_the_results(tmp_path: Path) -> None:
    heard = Heard()
    run = looked(tmp_path, OTHERS[:13], heard)
    assert cell(run, "mt-bench").value is None
    assert cell(run, "mt-bench").note == "NOT CHECKED: gone.jsonl is not on this machine"
    assert heard.notices == ["The prompts are NOT compared with mt-bench: gone.jsonl is not on this machine."]
    text = results_document("mine", read_cells(run.results(declare_contamination())))
    assert "| too close to alpaca-eval | 0 | 13 |" in text
    assert "| too close to mt-bench | – | 13 | NOT CHECKED: gone.jsonl is not on this machine |" in text


def test_another_version_of_a_benchmarks_file_is_said_and_stops_nothing(benchmark: Path) -> None:
    (benchmark / "gone.jsonl").write_text("another\n", encoding="utf-8")
    checked, unchecked, hits = compare([KNOWN])
    assert checked == ["alpaca-eval"]
    assert "expected 0000" in unchecked["mt-bench"]
    assert [hit is not None for hit in hits] == [True]


def test_without_any_file_nothing_is_called_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSHF_BENCHMARK_DATA")
    checked, unchecked, hits = compare([KNOWN])
    assert (checked, set(unchecked), hits) == ([], {"alpaca-eval", "mt-bench"}, [None])


def test_another_run_can_exclude_what_was_found(tmp_path: Path) -> None:
    heard = Heard()
    run = looked(tmp_path, [*OTHERS[:12], KNOWN], heard)
    path = run.path / STAGE / CONTAMINATED
    assert any(
        f"1 of 13 prompts are too close to a benchmark's; prompts.exclude of another run takes {path}" in said
        for said in heard.notices
    )
    source = Path(run.recipe.prompts.source)
    clean = recipe(prompts={"source": str(source), "roles": COUNTS, "exclude": [str(path)]}, loop={"iterations": 1})
    left, _ = split.supply(clean, source)
    assert len(left) == 12
    assert compare([row.messages[0]["content"] for row in left]).hits == [None] * 12


def test_what_a_machine_has_is_no_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was compared stays finished on a machine without the files."""
    before = contamination.declare_contamination()
    monkeypatch.delenv("GSHF_BENCHMARK_DATA")
    assert contamination.declare_contamination() == before
