"""A run goes to its end, redoes nothing that is finished, and goes on after whatever stopped it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gshf_release.data.results import read_cells
from gshf_release.errors import DataError, Interrupted, RunBusyError, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import engines_together, execute, seconds_spent
from gshf_release.run.manifest import State, fingerprint, state
from gshf_release.run.stage import Input, Stage, Task, check_graph, tasks
from tests.run.plans import PROFILES, RECIPE, Heard, begin, chain, content, recipe, start
from tests.run.work import made, stage, wait

HERE = PROFILES["here"]


def states(run: RunDirectory, stages: list[Stage]) -> list[State]:
    return [state(task, run, run.recipe, check_graph(stages)) for task in tasks(stages)]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return begin(tmp_path / "run")


def test_stages_run_in_order_and_read_each_other(run: RunDirectory) -> None:
    execute(chain("write", "write", "write"), run, RECIPE, HERE)
    assert made(run) == ["s1", "s2", "s3"]
    assert json.loads((run.path / "s3" / "out.json").read_text())["read"]["s2"][0]["read"]["s1"][0]["read"] == {}


def sampled(name: str, policy: str, *sources: str) -> Stage:
    inputs = tuple(Input(source, "out") for source in sources)
    return Stage(name, "m:work", inputs, ("out",), parameters={"policy": policy}, shards=2, runs_in="engine")


def test_stages_that_sample_from_one_policy_in_its_own_environment_follow_each_other() -> None:
    """But not before what they read; and with an engine of this environment the declared order stays."""
    declared = [
        Stage("base", "m:work", outputs=("out",)),
        sampled("base/answers", "base", "base"),
        Stage("base/scores", "m:work", (Input("base/answers", "out"),), ("out",)),
        sampled("samples", "base", "base"),
        Stage("choice", "m:work", (Input("base/scores", "out"),), ("out",)),
        sampled("chosen", "base", "choice"),
        sampled("others", "policy", "choice"),
    ]
    by_name = check_graph(declared)
    found = engines_together(tasks(declared), by_name, Profile(engine="vllm"))
    assert list(dict.fromkeys(task.stage.name for task in found)) == [
        *("base", "base/answers", "samples", "base/scores", "choice", "chosen", "others")
    ]
    assert engines_together(tasks(declared), by_name, Profile()) == tasks(declared)


def test_the_observer_hears_of_every_task(run: RunDirectory) -> None:
    heard = Heard()
    execute([stage("a"), stage("b", shards=2)], run, RECIPE, HERE, observer=heard)
    assert heard.begun == ["a (1 of 3)", "b 1/2 (2 of 3)", "b 2/2 (3 of 3)"]


def test_a_second_execution_redoes_nothing(run: RunDirectory) -> None:
    stages = chain("write", "write")
    execute(stages, run, RECIPE, HERE)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("out.json")}
    execute(stages, run, RECIPE, HERE)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("out.json")} == before
    assert made(run) == ["s1", "s2"]


def test_a_goal_leaves_the_rest_undone(run: RunDirectory) -> None:
    stages = chain("write", "write")
    execute(stages, run, RECIPE, HERE, goal=stages[:1])
    assert states(run, stages) == [State.FINISHED, State.MISSING]


def test_a_failure_leaves_earlier_stages_finished_and_nothing_half_written(run: RunDirectory) -> None:
    stages = chain("write", "fail_once", "write")
    (run.path / "broken").touch()
    with pytest.raises(ZeroDivisionError):
        execute(stages, run, RECIPE, HERE)
    assert states(run, stages) == [State.FINISHED, State.MISSING, State.MISSING]
    assert not (run.path / "s2" / "out.json").exists()
    assert not (run.path / "s2" / ".partial").exists()


def test_after_a_failure_the_run_goes_on_from_there(run: RunDirectory, tmp_path: Path) -> None:
    stages = chain("write", "fail_once", "write")
    (run.path / "broken").touch()
    with pytest.raises(ZeroDivisionError):
        execute(stages, run, RECIPE, HERE)
    assert (run.path / "s2" / ".scratch" / "saved").exists(), "scratch survives for the next try"
    (run.path / "broken").unlink()
    execute(stages, run, RECIPE, HERE)
    assert made(run) == ["s1", "s2", "s3"]
    assert not (run.path / "s2" / ".scratch").exists()
    unbroken = begin(tmp_path / "unbroken")
    execute(stages, unbroken, RECIPE, HERE)
    assert content(run) == content(unbroken)


def test_what_a_kill_left_half_written_is_overwritten(run: RunDirectory) -> None:
    """A kill between the renaming of outputs and the manifest leaves outputs without one, and a partial folder."""
    stages = chain("write")
    execute(stages, run, RECIPE, HERE)
    expected = (run.path / "s1" / "out.json").read_bytes()
    (run.path / "s1" / "manifest.json").unlink()
    (run.path / "s1" / "out.json").write_text("half", encoding="utf-8")
    (run.path / "s1" / ".partial").mkdir()
    (run.path / "s1" / ".partial" / "old").touch()
    execute(stages, run, RECIPE, HERE)
    assert (run.path / "s1" / "out.json").read_bytes() == expected
    assert {path.name for path in (run.path / "s1").iterdir()} == {"out.json", "manifest.json"}


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_output_is_found_and_redone(run: RunDirectory, damage: str) -> None:
    stages = chain("write", "write")
    execute(stages, run, RECIPE, HERE)
    path = run.path / "s1" / "out.json"
    expected = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(expected[::-1])
    heard = Heard()
    execute(stages, run, RECIPE, HERE, observer=heard)
    assert path.read_bytes() == expected
    assert heard.notices == ["s1: a file is not what its manifest says; redone."]
    assert made(run) == ["s1", "s2", "s1"], "the same bytes came out, so s2 still stands"


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_damage_inside_an_output_folder_is_found(run: RunDirectory, damage: str) -> None:
    stages = [stage("a", work="write_folder", outputs=("model",))]
    execute(stages, run, RECIPE, HERE)
    folder = run.path / "a" / "model"
    if damage == "changed":
        (folder / "weights").write_bytes(b"Weights")
    elif damage == "missing":
        (folder / "inner" / "config").unlink()
    else:
        (folder / "stray").touch()
    assert states(run, stages) == [State.DAMAGED]
    execute(stages, run, RECIPE, HERE)
    assert states(run, stages) == [State.FINISHED]
    assert sorted(path.name for path in folder.iterdir()) == ["inner", "weights"]


def test_damaged_cells_are_redone(run: RunDirectory) -> None:
    stages = [stage("a", numbers="tests.run.work:count")]
    execute(stages, run, RECIPE, HERE)
    (run.path / "results" / "a.json").write_text('{"cells": []}', encoding="utf-8")
    execute(stages, run, RECIPE, HERE)
    assert len(read_cells(run.path / "results.json")) == 1


def test_a_forgotten_output_is_named(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"did not write its declared output out\.json"):
        execute(chain("forget"), run, RECIPE, HERE)


KEYED = [
    stage("a", keys=("seed",)),
    stage("b", "a", keys=("training.beta",)),
    stage("c", keys=("sampling",)),
    stage("d", "b"),
]


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"release": {"repository": "o/n"}}, []),
        ({"training": {"beta": 0.2}}, ["b", "d"]),
        ({"training": {"epochs": 5}}, []),
        ({"sampling": {"n": 4}}, ["c"]),
        ({"seed": 1}, ["a", "b", "d"]),
    ],
)
def test_a_changed_key_redoes_what_depends_on_it(
    run: RunDirectory, changes: dict[str, object], redone: list[str]
) -> None:
    execute(KEYED, run, RECIPE, HERE)
    changed, heard = recipe(**changes), Heard()
    execute(KEYED, begin(run.path, changed), changed, HERE, observer=heard)
    assert made(run)[len(KEYED) :] == redone
    assert [", ".join(redone) in notice for notice in heard.notices] == ([True] if redone else [])


def test_another_profile_redoes_nothing(run: RunDirectory) -> None:
    execute(KEYED, run, RECIPE, HERE)
    elsewhere = Profile(name="elsewhere", sampling_batch=1, inference_precision="fp32")
    execute(KEYED, begin(run.path, RECIPE, elsewhere), RECIPE, elsewhere)
    assert len(made(run)) == len(KEYED)


@pytest.mark.parametrize(
    "other",
    [
        stage("a", keys=("seed",), parameters={"t": 1}),
        stage("a", keys=("seed",), identity="a/2"),
        stage("a", keys=("seed", "name")),
        stage("a", keys=("seed",), numbers="tests.run.work:count"),
        stage("a", keys=("seed",), outputs=("out.json", "more.json")),
        stage("a", keys=("seed",), shards=2),
    ],
)
def test_the_fingerprint_follows_the_declaration(other: Stage) -> None:
    assert fingerprint(Task(KEYED[0]), RECIPE, {}) != fingerprint(Task(other), RECIPE, {})


def test_moved_code_leaves_finished_stages_finished(run: RunDirectory) -> None:
    """The functions of a stage may lie anywhere: its identity says what it is."""
    execute(KEYED, run, RECIPE, HERE)
    moved = [replace(each, work="elsewhere:renamed", kind="other", part="evaluation") for each in KEYED]
    execute(moved, run, RECIPE, HERE)
    assert len(made(run)) == len(KEYED)


def test_a_raised_version_redoes_the_stage_and_what_depends_on_it(run: RunDirectory) -> None:
    """A diamond: b and c read a, d reads b. With another b, d is done again as well; a and c are not."""
    graph = [stage("a"), stage("b", "a", identity="b/1"), stage("c", "a"), stage("d", "b")]
    execute(graph, run, RECIPE, HERE)
    raised = [
        replace(each, identity="b/2", work="tests.run.work:write_otherwise") if each.name == "b" else each
        for each in graph
    ]
    execute(raised, run, RECIPE, HERE)
    assert made(run)[len(graph) :] == ["b", "d"]


def test_the_fingerprint_follows_the_content_of_inputs() -> None:
    assert fingerprint(Task(KEYED[1]), RECIPE, {"a": "0"}) != fingerprint(Task(KEYED[1]), RECIPE, {"a": "1"})


def changed_after(run: RunDirectory, seconds: float) -> None:
    """Finish the keyed plan and write into the journal that stage b took `seconds`, and the stage after it none."""
    execute(KEYED, run, RECIPE, HERE)
    run.log("finished", stage="b", seconds=seconds)
    run.log("finished", stage="d", seconds=0)


BETA = recipe(training={"beta": 0.2})


def test_ten_minutes_of_work_are_not_redone_unasked(run: RunDirectory) -> None:
    changed_after(run, 601)
    before = content(run)
    with pytest.raises(
        RunError, match=r"2 finished stage\(s\) will be redone \(10\.0 minutes\): b, d\. Add --allow-redo"
    ):
        execute(KEYED, run, BETA, HERE)
    assert content(run) == before


def test_a_refused_recipe_leaves_that_of_the_run_in_place(run: RunDirectory) -> None:
    changed_after(run, 601)
    with pytest.raises(RunError, match="--allow-redo"):
        execute(KEYED, begin(run.path, BETA), BETA, HERE)
    assert RunDirectory.open(run.path).recipe == RECIPE


def test_ten_minutes_of_work_are_redone_on_request(run: RunDirectory) -> None:
    changed_after(run, 601)
    execute(KEYED, begin(run.path, BETA), BETA, HERE, allow_redo=True)
    assert made(run)[-2:] == ["b", "d"]


def test_less_than_ten_minutes_are_redone_and_announced(run: RunDirectory) -> None:
    changed_after(run, 540)
    heard = Heard()
    execute(KEYED, begin(run.path, BETA), BETA, HERE, observer=heard)
    assert "9.0 minutes" in heard.notices[0]


def test_seconds_are_those_of_the_last_attempt(run: RunDirectory) -> None:
    for seconds in (5, 7):
        run.log("finished", stage="a", seconds=seconds)
    run.log("other", stage="a", seconds=9)
    assert seconds_spent(run) == {"a": 7}


def test_the_journal_tells_overhead_from_work(run: RunDirectory) -> None:
    execute([stage("a", work="load_for_a_while", numbers="tests.run.work:count")], run, RECIPE, HERE)
    begins, started, finished, ends = run.journal()
    assert [begins["event"], started["event"], finished["event"], ends["event"]] == [
        "command begins",
        "started",
        "finished",
        "command ends",
    ]
    assert begins["session"] == ends["session"]
    assert set(finished["parts"]) == {"loading", "cells", "hashing"}
    assert 0.05 <= finished["parts"]["loading"] <= finished["seconds"]


def test_a_command_that_fails_ends_in_the_journal(run: RunDirectory) -> None:
    with pytest.raises(DataError):
        execute(chain("refuse"), run, RECIPE, HERE)
    assert [entry["event"] for entry in run.journal()] == ["command begins", "started", "command ends"]


def test_every_shard_has_its_own_manifest(run: RunDirectory) -> None:
    stages = [stage("a", shards=3), stage("b", "a")]
    execute(stages, run, RECIPE, HERE)
    manifests = [json.loads((run.path / "a" / f"shard-00{k}" / "manifest.json").read_text()) for k in range(3)]
    assert [manifest["shard"] for manifest in manifests] == [[0, 3], [1, 3], [2, 3]]
    assert len({manifest["fingerprint"] for manifest in manifests}) == 3
    assert [read["shard"] for read in json.loads((run.path / "b" / "out.json").read_text())["read"]["a"]] == [0, 1, 2]


def test_a_damaged_shard_is_redone_alone(run: RunDirectory) -> None:
    stages = [stage("a", shards=3)]
    execute(stages, run, RECIPE, HERE)
    (run.path / "a" / "shard-001" / "out.json").unlink()
    execute(stages, run, RECIPE, HERE)
    assert made(run) == ["a 1/3", "a 2/3", "a 3/3", "a 2/3"]


def test_results_are_the_merge_of_the_stages_cells(run: RunDirectory) -> None:
    numbers = "tests.run.work:count"
    stages = [stage("b/x", numbers=numbers), stage("a"), stage("c", numbers=numbers)]
    execute(stages, run, RECIPE, HERE)
    parts = [read_cells(run.path / "results" / name) for name in ("b.x.json", "c.json")]
    assert read_cells(run.path / "results.json") == [*parts[0], *parts[1]]
    size = (run.path / "c" / "out.json").stat().st_size
    assert parts[1][0].value == size


def test_a_stage_may_read_the_cells_of_another(run: RunDirectory) -> None:
    first = stage("a", numbers="tests.run.work:count")
    reader = Stage(name="b", work="tests.run.work:forget", inputs=(Input("a", "results"),))
    execute([first, reader], run, RECIPE, HERE)
    manifest = json.loads((run.path / "b" / "manifest.json").read_text())
    assert list(manifest["inputs"]) == ["results/a.json"]


def test_a_moved_run_redoes_nothing(run: RunDirectory, tmp_path: Path) -> None:
    stages = chain("write", "write")
    execute(stages, run, RECIPE, HERE)
    run.path.rename(tmp_path / "moved")
    moved = begin(tmp_path / "moved")
    execute(stages, moved, RECIPE, HERE)
    assert made(moved) == ["s1", "s2"]
    assert str(tmp_path).encode() not in b"".join(content(moved).values())


@pytest.mark.parametrize("work", ["no_space", "rows_to_full_device"])
def test_a_full_disk_is_one_line_and_loses_nothing_finished(run: RunDirectory, work: str) -> None:
    stages = chain("write", work)
    with pytest.raises(RunError) as caught:
        execute(stages, run, RECIPE, HERE)
    assert "is full; s2 could not be written. Nothing finished was lost. Free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert states(run, stages) == [State.FINISHED, State.MISSING]


@pytest.mark.parametrize("work", ["two_megabytes", "two_megabytes_of_tensors"])
def test_a_disk_that_fills_up_is_one_line(tmp_path: Path, work: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        run = begin(tmp_path / "run")
        stages = chain("write", work)
        with pytest.raises(RunError, match="is full; s2 could not be written"):
            execute(stages, run, RECIPE, HERE)
        assert states(run, stages) == [State.FINISHED, State.MISSING]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_system_error_is_not_taken_for_a_full_disk(run: RunDirectory) -> None:
    with pytest.raises(PermissionError):
        execute(chain("no_permission"), run, RECIPE, HERE)


def test_sigterm_saves_stops_and_goes_on(run: RunDirectory) -> None:
    stages = chain("write", "stop_once", "write")
    with pytest.raises(Interrupted):
        execute(stages, run, RECIPE, HERE)
    assert (run.path / "s2" / ".scratch" / "saved").exists()
    execute(stages, run, RECIPE, HERE)
    assert made(run) == ["s1", "s2", "s3"]


def test_signal_handlers_are_restored(run: RunDirectory) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    execute(chain("write"), run, RECIPE, HERE)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


SHARDED = [
    stage("a", shards=2, keys=("seed",)),
    stage("b", "a", scope="shard", shards=2),
    stage("c", "b", numbers="tests.run.work:count"),
]


@pytest.mark.parametrize("profile", ["worker", "parallel"])
def test_workers_make_the_same_files(run: RunDirectory, tmp_path: Path, profile: str) -> None:
    execute(SHARDED, run, RECIPE, HERE)
    other = begin(tmp_path / "other", RECIPE, PROFILES[profile])
    execute(SHARDED, other, RECIPE, PROFILES[profile])
    assert content(other) == content(run)


def test_a_shard_starts_when_its_own_input_shard_is_finished(tmp_path: Path) -> None:
    stages = [stage("a", shards=2, work="wait_for_shard_of_b"), stage("b", "a", scope="shard", shards=2)]
    run = begin(tmp_path / "run", RECIPE, PROFILES["parallel"])
    execute(stages, run, RECIPE, PROFILES["parallel"])
    assert made(run) == ["a 1/2", "b 1/2", "a 2/2", "b 2/2"]


def test_a_workers_known_error_comes_back_on_one_line(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, PROFILES["worker"])
    with pytest.raises(DataError) as caught:
        execute(chain("refuse"), run, RECIPE, PROFILES["worker"])
    assert "The worker of s1 failed: prompts.jsonl:3: bad row. Mend it." in str(caught.value)
    with pytest.raises(DataError):
        execute(chain("refuse"), run, RECIPE, HERE)


@pytest.mark.parametrize("profile", ["here", "worker"])
def test_sigterm_to_the_command_stops_it_and_the_same_command_goes_on(tmp_path: Path, profile: str) -> None:
    path = tmp_path / "run"
    process = start(path, profile, "write", "wait_for_signal")
    wait((path / "s2" / ".scratch" / "begun").exists)
    process.terminate()
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint.strip()) == (Interrupted.exit_code, "Stopped on request.")
    run = RunDirectory.open(path)
    assert made(run) == ["s1"]
    execute(chain("write", "wait_for_signal"), run, RECIPE, HERE)
    assert made(run) == ["s1", "s2"]


def test_an_orphaned_worker_and_the_resumed_run_do_not_work_on_one_task(tmp_path: Path) -> None:
    """The command is killed, its worker lives on: the resumed command must wait for it, refuse, or have ended it."""
    path = tmp_path / "run"
    process = start(path, "worker", "overlap")
    wait((path / "overlap.log").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = RunDirectory.open(path)
    try:
        execute(chain("overlap"), run, RECIPE, HERE)
    except RunBusyError:
        return
    orphan, own = f"{worker_of(path)}", f"{os.getpid()}"
    log = (path / "overlap.log").read_text(encoding="utf-8").splitlines()
    assert log in (
        [f"begin {orphan}", f"begin {own}", f"end {own}"],
        [f"begin {orphan}", f"end {orphan}", f"begin {own}", f"end {own}"],
        [f"begin {orphan}", f"end {orphan}"],
    )


def worker_of(path: Path) -> int:
    """Return the process that began first."""
    return int((path / "overlap.log").read_text(encoding="utf-8").split()[1])
