"""The date of a run is written down once, when a template first asks for it."""

from __future__ import annotations

import multiprocessing
import os
from datetime import datetime
from pathlib import Path

import pytest

from gshf_release.errors import RunError
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.clock import clock, recorded
from gshf_release.run.directory import RunDirectory, read_json, write_json

RECIPE = Recipe.model_validate({"name": "dated", "base": {"model": "m"}, "evaluation": {"only": True}})
LONG_AGO = datetime(2021, 1, 2, 3, 4, 5)


def begin(path: Path, date: str | None = None) -> RunDirectory:
    run = RunDirectory.create(path, RECIPE, Profile())
    if date is not None:
        write_json(path / "run.json", {**run.document, "date": date})
    return run


def test_a_run_holds_no_date_until_it_is_asked_for(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    clock(run)
    assert "date" not in read_json(run.path / "run.json")
    before = datetime.now().replace(microsecond=0)
    moment = clock(run)()
    assert before <= moment <= datetime.now()
    assert recorded(run) == moment
    assert read_json(run.path / "run.json") == {"format": 1, "name": "dated", "date": moment.isoformat()}
    assert [entry["event"] for entry in run.journal()] == ["date written down for the chat template"]


def test_the_date_is_that_on_which_the_run_began(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    run.path.joinpath("journal.jsonl").write_text(
        f'{{"time": {LONG_AGO.timestamp() + 0.25}, "event": "begun"}}\n{{"time": 9e9, "event": "later"}}\n',
        encoding="utf-8",
    )
    assert clock(run)() == LONG_AGO
    assert clock(RunDirectory(run.path))() == LONG_AGO


def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    clock(run, record=False)()
    assert recorded(run) is None
    assert clock(begin(tmp_path / "other", "2021-01-02T03:04:05"), record=False)() == LONG_AGO


def test_the_seeds_of_one_command_share_a_date(tmp_path: Path) -> None:
    begin(tmp_path / "seed-0", "2021-01-02T03:04:05")
    begin(tmp_path / "seed-1", "2022-01-02T03:04:05")
    assert clock(begin(tmp_path / "seed-2"))() == LONG_AGO
    assert clock(begin(tmp_path / "another"))() > LONG_AGO


def test_a_date_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="'yesterday' is no date"):
        clock(begin(tmp_path / "run", "yesterday"))()


def _ask(path: str) -> str:
    return f"{os.getpid()} {clock(RunDirectory(Path(path)))().isoformat()}"


def test_processes_that_ask_at_once_get_one_date(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        dates = {answer.split()[1] for answer in pool.map(_ask, [str(run.path)] * 6, chunksize=1)}
    assert len(dates) == 1
