"""The run directory: its identity, journal and locks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gshf_release.errors import DataError, RunBusyError, RunError
from gshf_release.run.directory import RunDirectory, write_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Task
from tests.run.plans import PROFILES, RECIPE, begin, chain, recipe, start
from tests.run.work import stage, wait


def test_recipe_and_profile_are_recorded(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    assert (run.recipe, run.profile) == (RECIPE, PROFILES["here"])
    assert RunDirectory.open(tmp_path / "run").recipe.sha256 == RECIPE.sha256


def test_another_name_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run")
    with pytest.raises(RunError, match=r"is the run 'small', the recipe is called 'other'\. Choose another folder"):
        begin(tmp_path / "run", recipe(name="other"))
    assert RunDirectory.open(tmp_path / "run").recipe.name == "small"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not a run directory"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert begin(tmp_path).document["name"] == "small"


def test_opening_what_is_no_run_names_the_command_that_begins_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gshf-release train RECIPE"):
        RunDirectory.open(tmp_path)


def test_the_journal_skips_a_line_cut_by_a_kill(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.log("finished", stage="a", seconds=1)
    with (tmp_path / "journal.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"event": "fini')
    assert [entry["stage"] for entry in run.journal()] == ["a"]


def test_the_journal_takes_any_text_and_a_line_cut_within_a_letter(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.log("told", prompt="one\u2028two\x85three")
    with (tmp_path / "journal.jsonl").open("ab") as stream:
        stream.write('{"event": "é'.encode()[:-1])
    assert [entry["prompt"] for entry in run.journal()] == ["one\u2028two\x85three"]


def test_what_follows_a_line_cut_by_a_kill_is_kept(tmp_path: Path) -> None:
    run = begin(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"event": "fini', encoding="utf-8")
    run.log("finished", stage="b", seconds=1)
    assert [entry["stage"] for entry in run.journal()] == ["b"]


def test_json_is_written_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00"])
def test_a_damaged_manifest_is_none(tmp_path: Path, damage: bytes) -> None:
    run, task = begin(tmp_path), Task(stage("a"))
    execute([task.stage], run, RECIPE, PROFILES["here"])
    run.manifest_path(task).write_bytes(damage)
    assert run.manifest(task) is None


def test_a_lock_is_free_again_after_use(tmp_path: Path) -> None:
    run, task = begin(tmp_path), Task(stage("a"))
    for _ in range(2):
        with run.lock(task), pytest.raises(RunBusyError), run.lock(task):
            pytest.fail("two held one lock")


def test_shards_have_locks_of_their_own(tmp_path: Path) -> None:
    run, sharded = begin(tmp_path), stage("a", shards=2)
    with run.lock(Task(sharded, 0)) as first, run.lock(Task(sharded, 1)) as second:
        assert first != second


def test_two_processes_may_work_on_the_same_recipe(tmp_path: Path) -> None:
    run, stages = begin(tmp_path), [stage("a")]
    with run.work_on(RECIPE, PROFILES["here"], stages), run.work_on(RECIPE, PROFILES["worker"], stages):
        assert (run.recipe, run.plan) == (RECIPE, stages)


def test_another_recipe_waits_for_the_one_being_worked_on(tmp_path: Path) -> None:
    run, stages, other = begin(tmp_path), [stage("a")], recipe(seed=1)
    with run.work_on(RECIPE, PROFILES["here"], stages):
        with (
            pytest.raises(RunBusyError, match="with another recipe"),
            run.work_on(other, PROFILES["here"], stages),
        ):
            pytest.fail("the recipe was changed under a working process")
        assert run.recipe == RECIPE
    with run.work_on(other, PROFILES["here"], stages):
        assert run.recipe == other


@pytest.mark.skipif(sys.platform == "win32", reason="locks are flock")
def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    stages = chain("wait_for_signal")
    process = start(path, "here", "wait_for_signal")
    try:
        wait((path / "s1" / ".scratch" / "begun").exists)
        run = RunDirectory.open(path)
        with pytest.raises(RunBusyError) as caught:
            execute(stages, run, RECIPE, PROFILES["here"])
        assert f"process {process.pid}" in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        process.kill()
        process.communicate()
    execute(stages, run, RECIPE, PROFILES["here"])
    assert run.manifest(Task(stages[0])) is not None


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_a_damaged_plan_is_one_line(tmp_path: Path, text: str) -> None:
    run = begin(tmp_path / "run")
    (run.path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"plan\.json is damaged.* Run the command that made it again"):
        _ = run.plan
