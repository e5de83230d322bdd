"""Stages that need another environment: one worker there for all shards. The environment is ours under another name."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gshf_release import environments
from gshf_release.errors import DataError, EngineError, Interrupted, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.persistent_worker import environment_of
from gshf_release.run.stage import Stage
from tests.conftest import REPOSITORY
from tests.run.plans import PROFILES, RECIPE, Heard, begin, content, without_torch
from tests.run.work import made, processes, stage, wait

pytestmark = pytest.mark.slow
AWAY = "other"


@dataclass(frozen=True)
class Here:
    """Stands for an environment: processes in it are of this very interpreter, but have no torch, so that they start fast."""

    def command(self, module: str, *arguments: str) -> list[str]:
        return without_torch(module, *arguments)

    def variables(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every environment be there."""
    monkeypatch.setattr(environments, "require", lambda name, device: Here())


def plan(work: str = "say_process", shards: int = 3) -> list[Stage]:
    """Return a stage elsewhere between two here, and another elsewhere."""
    return [
        stage("a", shards=shards),
        stage("b", "a", scope="shard", shards=shards, work=work, runs_in=AWAY),
        stage("c", "b", scope="shard", shards=shards),
        stage("d", "c", work=work, runs_in=AWAY),
    ]


@pytest.mark.parametrize("profile", ["here", "parallel"])
def test_one_worker_does_all_shards_of_a_stage_and_then_leaves(tmp_path: Path, away: None, profile: str) -> None:
    run = begin(tmp_path / "run", RECIPE, PROFILES[profile])
    stages = plan() if profile == "here" else [replace(entry, runs_in=AWAY) for entry in plan()]
    execute(stages, run, RECIPE, PROFILES[profile])
    found = processes(run)
    assert len(found["b"]) == len(found["d"]) == 1
    assert found["b"] != found["d"]
    assert not found["b"] & {os.getpid()}
    for process in found["b"] | found["d"]:
        assert not Path(f"/proc/{process}").exists()


def test_the_same_files_come_out_wherever_the_work_is_done(tmp_path: Path, away: None) -> None:
    def outputs(path: Path, stages: list[Stage]) -> dict[str, bytes]:
        run = begin(path)
        execute(stages, run, RECIPE, Profile())
        return {name: data for name, data in content(run).items() if name != "plan.json"}

    here = [replace(entry, runs_in="") for entry in plan("write")]
    assert outputs(tmp_path / "elsewhere", plan("write")) == outputs(tmp_path / "here", here)


def test_moving_a_stage_to_another_environment_redoes_nothing(tmp_path: Path, away: None) -> None:
    run = begin(tmp_path / "run")
    execute([stage("a", work="write")], run, RECIPE, Profile())
    heard = Heard()
    execute([stage("a", work="write", runs_in=AWAY)], run, RECIPE, Profile(), observer=heard)
    assert heard.begun == []


def test_progress_is_heard_from_the_worker(tmp_path: Path, away: None) -> None:
    run = begin(tmp_path / "run")
    heard: list[tuple[int, int, str]] = []

    class Ear(Heard):
        def started(self, *arguments: Any) -> Any:
            return lambda *progress: heard.append(progress)

    execute([stage("a", work="report_progress", runs_in=AWAY)], run, RECIPE, Profile(), observer=Ear())
    assert heard[-1] == (3, 3, "steps")


def test_what_a_worker_says_is_heard(tmp_path: Path, away: None) -> None:
    run, heard = begin(tmp_path / "run"), Heard()
    execute([stage("a", work="say_something", runs_in=AWAY)], run, RECIPE, Profile(), observer=heard)
    assert heard.notices == ["two prompts are too long"]


GPU = {"device": "cuda", "engine": "vllm"}


def loop() -> list[Stage]:
    """Return what a policy is sampled for, scored and trained: an engine, this environment, an engine on the next policy."""
    engine: dict[str, Any] = {"work": "say_process_alone", "runs_in": "engine"}
    return [
        stage("base", work="say_process_alone"),
        stage("samples", "base", shards=2, parameters={"policy": "base"}, **engine),
        stage("rewards", "samples", shards=2, scope="shard", work="say_process_alone"),
        stage("policy", "rewards", work="say_process_alone"),
        stage("answers", "base", parameters={"policy": "base"}, **engine),
        stage("measure", "answers", work="say_process_alone"),
        stage("next", "policy", parameters={"policy": "policy"}, **engine),
    ]


def test_where_there_is_a_gpu_nothing_else_is_open_when_a_stage_begins(tmp_path: Path, away: None) -> None:
    profile = Profile(**GPU)  # type: ignore[arg-type]
    run = begin(tmp_path / "run", RECIPE, profile)
    execute(loop(), run, RECIPE, profile)
    found = processes(run)
    assert found["samples"] == found["answers"], "one engine on one policy"
    assert [len(found[name]) for name in found] == [1] * 7, "one process for the shards of a stage"
    assert found["rewards"] == found["policy"] == found["measure"], "and for the stages between two engines"
    assert len(set().union(*found.values())) == 4


def test_of_several_workers_an_engine_that_waits_goes_on_before_others_begin(tmp_path: Path, away: None) -> None:
    profile = Profile(parallel_workers=2, **GPU)  # type: ignore[arg-type]
    stages = [replace(entry, work="tests.run.work:say_process") for entry in loop()]
    run, heard = begin(tmp_path / "run", RECIPE, profile), Heard()
    execute(stages, run, RECIPE, profile, observer=heard)
    begun = [told.partition(" (")[0] for told in heard.begun]
    assert begun.index("answers") < begun.index("policy")
    assert processes(run)["samples"] == processes(run)["answers"]
    assert processes(run)["rewards"] != processes(run)["policy"], "a stage's memory is returned"


def test_a_known_error_comes_back_on_one_line(tmp_path: Path, away: None) -> None:
    run = begin(tmp_path / "run")
    with pytest.raises(DataError, match=r"^The worker of a failed: prompts.jsonl:3: bad row. Mend it.$"):
        execute([stage("a", work="refuse", runs_in=AWAY)], run, RECIPE, Profile())


def test_an_unknown_error_comes_back_with_its_last_line(tmp_path: Path, away: None) -> None:
    run = begin(tmp_path / "run")
    (run.path / "broken").touch()
    stages = [stage("a", work="fail_once", runs_in=AWAY)]
    with pytest.raises(RunError, match="The worker of a failed: ZeroDivisionError: broken"):
        execute(stages, run, RECIPE, Profile())
    (run.path / "broken").unlink()
    execute(stages, run, RECIPE, Profile())
    assert made(run) == ["a"]


def test_for_debugging_all_that_the_worker_printed_is_shown(
    tmp_path: Path, away: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GSHF_DEBUG", "1")
    run = begin(tmp_path / "run")
    (run.path / "broken").touch()
    with pytest.raises(RunError, match="ZeroDivisionError: broken"):
        execute([stage("a", work="fail_once", runs_in=AWAY)], run, RECIPE, Profile())
    assert "Traceback" in capfd.readouterr().err


def test_a_worker_that_dies_without_a_word_is_named(tmp_path: Path, away: None) -> None:
    run = begin(tmp_path / "run")
    with pytest.raises(RunError, match="The worker of a failed: exit code -9"):
        execute([stage("a", work="die", runs_in=AWAY)], run, RECIPE, Profile())


def test_a_stop_reaches_the_worker_and_the_same_command_goes_on(tmp_path: Path, away: None) -> None:
    path = tmp_path / "run"
    begin(path)
    process = subprocess.Popen([sys.executable, "-m", "tests.run.test_persistent_worker", str(path)], cwd=REPOSITORY)
    wait((path / "a" / ".scratch" / "begun").exists)
    process.terminate()
    assert process.wait(60) == Interrupted.exit_code
    run = RunDirectory.open(path)
    assert made(run) == []
    execute([stage("a", work="wait_for_signal", runs_in=AWAY)], run, RECIPE, Profile())
    assert made(run) == ["a"]


@pytest.mark.parametrize(
    ("work", "why"),
    [
        ("fail_to_save", "The disk that holds .* is full"),
        ("run_out_of_memory", "MemoryError: no memory for the checkpoint"),
        ("be_killed_at_the_checkpoint", "exit code -9"),
    ],
)
def test_a_checkpoint_that_could_not_be_saved_at_a_stop_is_told(
    tmp_path: Path, away: None, monkeypatch: pytest.MonkeyPatch, work: str, why: str
) -> None:
    run = begin(tmp_path / "run")
    monkeypatch.setattr(interrupt, "requested", (run.path / "a" / ".scratch" / "begun").exists)
    with pytest.raises(RunError, match=f"The worker of a failed: {why}"):
        execute([stage("a", work=work, runs_in=AWAY)], run, RECIPE, Profile())
    assert len(processes(run).get("a", {0})) == 1, "no other one takes the task"


def test_a_missing_environment_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    run = begin(tmp_path / "run")
    stages = [stage("a"), stage("b", "a", runs_in="engine")]
    with pytest.raises(
        EngineError, match=r"The environment 'vllm' for cuda has not been set up\. Run.* gshf-release setup vllm"
    ):
        execute(stages, run, RECIPE, Profile(engine="vllm", device="cuda"))
    assert made(run) == []
    execute(stages, run, RECIPE, Profile())
    assert made(run) == ["a", "b"]


def test_a_finished_stage_needs_its_environment_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    run = begin(tmp_path / "run")
    stages = [stage("a", runs_in="engine")]
    execute(stages, run, RECIPE, Profile())
    execute(stages, run, RECIPE, Profile(engine="vllm"))
    assert made(run) == ["a"]


def test_the_profile_says_where_an_engine_lives() -> None:
    assert environment_of(stage("a"), Profile(engine="vllm")) == ""
    assert environment_of(stage("a", runs_in="engine"), Profile()) == ""
    assert environment_of(stage("a", runs_in="engine"), Profile(engine="vllm")) == "vllm"
    assert environment_of(stage("a", runs_in="quant"), Profile()) == "quant"


def _wait_elsewhere(path: str) -> None:
    """Execute a stage that waits to be stopped, in a worker; the entry point of a subprocess."""
    environments.require = lambda name, device: Here()  # type: ignore[assignment, return-value]
    execute([stage("a", work="wait_for_signal", runs_in=AWAY)], RunDirectory.open(Path(path)), RECIPE, Profile())


if __name__ == "__main__":
    try:
        _wait_elsewhere(sys.argv[1])
    except Interrupted as stop:
        sys.exit(stop.exit_code)
