"""Commands on the parent that `train --seeds` made go over its seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.data.results import Cell, read_cells, write_cells
from gshf_release.evaluation.metrics import answered_by, doubt
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL
from gshf_release.report.seeds import write_merged
from gshf_release.run.directory import RunDirectory
from tests.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        ("-1", "whole numbers from 0 on"),
        ("0,-1", "whole numbers from 0 on"),
        ("0,x", "whole numbers from 0 on"),
        ("0,,1", "whole numbers from 0 on"),
        ("0,1,0", "names the seed 0 twice"),
        ("1,01", "names the seed 1 twice"),
    ],
)
def test_seeds_that_are_no_seeds_are_refused_in_one_line(
    command: Command, tmp_path: Path, seeds: str, reason: str
) -> None:
    outcome = command("train", "quickstart", "--run", tmp_path / "run", "--seeds", seeds)
    assert outcome.code == 1
    assert reason in outcome.line
    assert not (tmp_path / "run").exists()


@pytest.fixture
def parent(finished: RunDirectory, tmp_path: Path) -> Path:
    for seed in (0, 1):
        shutil.copytree(finished.path, tmp_path / "tiny" / f"seed-{seed}")
    return tmp_path / "tiny"


def test_every_command_that_reads_goes_over_the_seeds(command: Command, parent: Path) -> None:
    evaluated = command("eval", parent, "--json")
    assert evaluated.code == 0, evaluated.err
    found = json.loads(evaluated.out)
    assert list(found["seeds"]) == ["0", "1"]
    assert len(read_cells(parent / "results.json")) == len(found["cells"])
    assert {cell["seeds"] for cell in found["cells"]} <= {0, 2}
    assert {cell["standard_error_across_seeds"] for cell in found["cells"] if cell["seeds"]} == {0.0}

    reported = command("report", parent, "--json")
    assert json.loads(reported.out) == found
    assert "SE across seeds" in command("report", parent).out
    status = command("status", parent, "--json")
    assert [len(entry["tasks"]) > 10 for entry in json.loads(status.out)["seeds"].values()] == [True, True]
    assert f"{parent / 'seed-1'}:" in command("status", parent).out
    verified = command("verify", parent, "--json")
    assert verified.code == 0, verified.err
    assert set(json.loads(verified.out)["seeds"]) == {"0", "1"}


def test_a_change_in_one_seed_is_found_and_named(command: Command, parent: Path) -> None:
    path = parent / "seed-1" / "iteration-1" / "prompts" / "prompts.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    outcome = command("verify", parent)
    assert outcome.code == 3
    assert outcome.line.startswith("Error: seed-1: iteration-1/prompts/prompts.parquet")


def test_a_command_for_one_run_names_a_seed(command: Command, parent: Path) -> None:
    outcome = command("publish", parent, "--out", parent / "out")
    assert outcome.code == 1
    assert "holds the runs of 2 seeds. Name one, such as" in outcome.line


def test_what_weakens_a_seeds_numbers_stands_before_the_mean_over_seeds(command: Command, parent: Path) -> None:
    place = {"table": "alpaca_eval_2", "row": "iteration-1", "judge": "a/judge", "n": 500, "of": 805}
    path = parent / "seed-1" / "results.json"
    values = {"LC win rate": 20.0, doubt(OTHER_MODEL): 500.0, answered_by("another"): 500.0}
    write_cells([*read_cells(path), *(Cell(**place, metric=name, value=value) for name, value in values.items())], path)
    write_merged(parent)
    told = [
        "Seed 1: Incomplete: alpaca_eval_2, judged by a/judge: iteration-1 500 of 805 judgments. A number of a part does not "
        "compare with numbers of the whole benchmark.",
        f"Seed 1: Warning: alpaca_eval_2, judged by a/judge, iteration-1: 500 of 500 judgments: {OTHER_MODEL} "
        "(answered by another 500).",
    ]
    assert json.loads(command("report", parent, "--json").out)["notices"] == told
    assert all(line in command("report", parent).err for line in told)
    marked = command("report", parent, "--markdown").out
    text = (parent / "results.md").read_text(encoding="utf-8")
    for line in told:
        assert marked.index(f"> **{line}**") < marked.index("mean over seeds")
        assert text.index(f"> **{line}**") < text.index("mean over seeds")
