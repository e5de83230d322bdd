"""WorkerPool of this environment: they stay from one task to the next, are replaced when killed, and die with their command."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gshf_release.errors import DataError, RunBusyError, RunError
from gshf_release.run import interrupt
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Task
from tests.run.plans import PROFILES, RECIPE, Heard, begin, chain, start
from tests.run.work import alive, made, processes, stage, wait

TWO, ONE = PROFILES["parallel"], PROFILES["worker"]


def test_two_workers_do_all_tasks_and_then_leave(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    stages = [
        stage("a", work="say_process_together", shards=2),
        stage("b", "a", work="say_process", scope="shard", shards=2),
        stage("c", "b", work="say_process"),
        stage("d", "c", work="say_process", shards=3),
    ]
    execute(stages, run, RECIPE, TWO)
    assert len(made(run)) == 8
    found = set().union(*processes(run).values())
    assert found == processes(run)["a"], "nobody came later"
    assert len(found) == 2
    assert not any(alive(pid) for pid in found)


def test_one_worker_returns_its_memory_after_a_stage(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, ONE)
    execute([stage("a", work="say_process", shards=2), stage("b", "a", work="say_process")], run, RECIPE, ONE)
    found = processes(run)
    assert [len(found[name]) for name in "ab"] == [1, 1]
    assert found["a"] != found["b"]


def test_a_worker_killed_at_a_task_is_replaced(tmp_path: Path) -> None:
    run, heard = begin(tmp_path / "run", RECIPE, TWO), Heard()
    stages = chain("write", "die_once", "write")
    execute(stages, run, RECIPE, TWO, observer=heard)
    assert made(run) == ["s1", "s2", "s3"]
    assert heard.notices == ["The worker of s2 was killed; another one takes the task."]
    with run.lock(Task(stages[1])):
        """It is free."""


def test_a_worker_killed_between_tasks_is_replaced(tmp_path: Path) -> None:
    run, heard = begin(tmp_path / "run", RECIPE, TWO), Heard()
    stages = [
        stage("a", work="say_process_together", shards=2),
        stage("b", "a", work="kill_the_idle"),
        stage("c", "b", work="say_process_together", shards=2),
    ]
    execute(stages, run, RECIPE, TWO, observer=heard)
    assert len(processes(run)["a"] & processes(run)["c"]) == 1, "the other one is new"
    assert heard.notices == []


def test_a_task_that_kills_its_workers_fails_and_its_lock_is_free(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    stages = chain("die")
    with pytest.raises(RunError, match="The worker of s1 failed: exit code -9"):
        execute(stages, run, RECIPE, TWO)
    assert [entry["event"] for entry in run.journal()].count("started") == 2
    with run.lock(Task(stages[0])):
        """It is free."""


def test_a_failure_is_told_while_another_worker_is_busy_and_a_second_one_too(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)

    class Ear(Heard):
        def notice(self, text: str) -> None:
            super().notice(text)
            (run.path / "heard").touch()

    heard = Ear()
    stages = [stage("a", work="refuse_beside_others"), stage("b", work="fail_after_the_other"), stage("c")]
    with pytest.raises(DataError, match=r"^The worker of a failed: prompts.jsonl:3: bad row\. Mend it\.$"):
        execute(stages, run, RECIPE, TWO, observer=heard)
    assert heard.notices == [
        "The worker of a failed: prompts.jsonl:3: bad row. Mend it.\n"
        "Nothing else begins; still running: b. Ctrl-C saves and stops.",
        "The worker of b failed: no memory left. Use a larger machine.",
    ]
    assert made(run) == [], "nothing else began"


def test_a_failure_beside_a_stop_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    begun = [run.path / name / ".scratch" / "begun" for name in "ab"]
    monkeypatch.setattr(interrupt, "requested", lambda: all(path.exists() for path in begun))
    stages = [stage("a", work="work_until_stopped"), stage("b", work="fail_to_save")]
    with pytest.raises(RunError, match=r"The disk that holds .* is full"):
        execute(stages, run, RECIPE, TWO)


def test_a_killed_command_leaves_no_worker_behind(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = start(path, "parallel", "say_process", "stay")
    wait((path / "journal.jsonl").exists)
    run = RunDirectory.open(path)
    wait(lambda: "s2" in processes(run))
    (worker,) = processes(run)["s2"]
    assert processes(run)["s1"] == {worker}
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    wait(lambda: not alive(worker), seconds=60)
    wait(lambda: free(run, Task(chain("say_process", "stay")[1])), seconds=60)
    assert made(run) == ["s1"]


def free(run: RunDirectory, task: Task) -> bool:
    """Return whether nobody holds the lock of a task."""
    try:
        with run.lock(task):
            return True
    except RunBusyError:
        return False
