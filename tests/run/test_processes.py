"""What several training processes tell the command that started them. Most are small stand-ins for a launcher."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import DataError, GshfError, Interrupted, NetworkError, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt, worker_protocol
from gshf_release.run.execution import execute
from gshf_release.run.processes import Processes
from tests.run.plans import RECIPE, Heard, begin
from tests.run.work import FILE, made, stage

pytestmark = pytest.mark.slow
TWO = Profile(processes=2)
REFUSED = worker_protocol.of_error(NetworkError("The Hub is away.", hint="Wait."))
STOPPED = worker_protocol.of_error(Interrupted("Stopped on request."))


class Ear(Heard):
    """Keeps progress too."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: list[tuple[int, int, str]] = []

    def started(self, *arguments: Any) -> Any:
        """Keep the label, and all progress."""
        super().started(*arguments)
        return lambda *progress: self.progress.append(progress)


def marked(message: dict[str, Any]) -> str:
    """Return a message as a process prints it."""
    return f"print({worker_protocol.MARK + json.dumps(message)!r}, file=sys.stderr, flush=True)"


def processes(folder: Path, *code: str, **options: Any) -> Processes:
    """Start a stand-in for a launcher with its processes."""
    command = [sys.executable, "-c", "\n".join(["import os, sys, time", *code])]
    return Processes(command, folder / "stop", (), **options)


def failure(folder: Path, *code: str) -> GshfError:
    """Return the error that comes of processes which do this."""
    with processes(folder, *code) as started, pytest.raises(GshfError) as caught:
        started.finish("a")
    return caught.value


def test_a_known_error_keeps_its_class_message_and_hint(tmp_path: Path) -> None:
    error = failure(tmp_path, marked(REFUSED), "sys.exit(1)")
    assert type(error) is NetworkError
    assert (error.message, error.hint) == ("The worker of a failed: The Hub is away.", "Wait.")


def test_an_unforeseen_error_may_pass(tmp_path: Path) -> None:
    error = failure(tmp_path, marked({"say": "x"}), "raise ZeroDivisionError('broken')")
    assert type(error) is RunError
    assert str(error) == "The worker of a failed: ZeroDivisionError: broken. Run the same command to try again."


def test_an_error_wins_over_others_that_were_interrupted(tmp_path: Path) -> None:
    assert type(failure(tmp_path, marked(STOPPED), marked(REFUSED), "sys.exit(1)")) is NetworkError
    assert "MemoryError" in str(failure(tmp_path, "print('MemoryError', file=sys.stderr)", marked(STOPPED), "exit(1)"))


@pytest.fixture
def wait_for_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask this process to stop from the beginning; return the code that waits until its processes are asked too."""
    monkeypatch.setattr(interrupt, "requested", lambda: True)
    return f"while not os.path.exists({str(tmp_path / 'stop')!r}): time.sleep(0.01)"


def test_interrupted_are_processes_that_say_so(tmp_path: Path, wait_for_stop: str) -> None:
    error = failure(tmp_path, wait_for_stop, marked(STOPPED), "sys.exit(1)")
    assert type(error) is Interrupted
    assert str(error) == "Stopped on request."


def test_an_error_during_a_stop_is_told(tmp_path: Path, wait_for_stop: str) -> None:
    assert type(failure(tmp_path, wait_for_stop, marked(REFUSED), "sys.exit(1)")) is NetworkError
    error = failure(tmp_path, wait_for_stop, "raise MemoryError('no memory for the checkpoint')")
    assert type(error) is RunError
    assert "MemoryError: no memory for the checkpoint" in str(error)


def test_work_that_ended_well_during_a_stop_is_done(tmp_path: Path, wait_for_stop: str) -> None:
    with processes(tmp_path, wait_for_stop) as started:
        started.finish("a")
    assert (tmp_path / "stop").exists(), "it was asked to stop"


def test_every_line_is_heard_among_what_libraries_print(tmp_path: Path) -> None:
    """Even where it is much, and a bar stands on the same line."""
    heard: list[str] = []
    say = f"print(chr(13) + '12%|##', end='', file=sys.stderr); {marked({'say': 'too long'})}"
    noise = "print('x' * 1000, file=sys.stderr)"
    with processes(tmp_path, "for _ in range(500):", f"    {noise}", f"    {say}", say=heard.append) as started:
        started.finish("a")
    assert heard == ["too long"] * 500


def test_rank_0_of_two_tells_progress_and_lines_of_each_shard(tmp_path: Path) -> None:
    run, ear = begin(tmp_path / "run", RECIPE, TWO), Ear()
    stages = [stage("a", work="tell_among_others", shards=2, distributed=True)]
    execute(stages, run, RECIPE, TWO, observer=ear)
    assert made(run) == ["a 1/2", "a 2/2"]
    assert ear.notices == [f"a {shard}/2: two responses are too long (rank 0)" for shard in (1, 2)]
    assert ear.progress[-1] == (3, 3, "steps")
    assert (run.path / "a" / "shard-001" / FILE).is_file()


def test_two_processes_without_room_for_their_checkpoint_are_not_just_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    begun = run.path / "a" / ".scratch" / "begun"
    monkeypatch.setattr(interrupt, "requested", begun.exists)
    with pytest.raises(RunError, match=r"The worker of a failed: The disk that holds .* is full") as caught:
        execute([stage("a", work="fail_to_save", distributed=True)], run, RECIPE, TWO)
    assert caught.value.hint == "Free some space and run the same command again."


def test_two_processes_asked_to_stop_are_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    monkeypatch.setattr(interrupt, "requested", (run.path / "a" / ".scratch" / "begun").exists)
    with pytest.raises(Interrupted, match=r"^Stopped on request\.$"):
        execute([stage("a", work="work_until_stopped", distributed=True)], run, RECIPE, TWO)


@pytest.mark.slow
@pytest.mark.parametrize(("work", "why"), [("fail_beside", "ZeroDivisionError: broken"), ("die_beside", "SIGKILL")])
def test_one_that_was_asked_to_stop_because_the_other_failed_does_not_hide_it(
    tmp_path: Path, work: str, why: str
) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    with pytest.raises(RunError, match=f"The worker of a failed: .*{why}.*Run the same command to try again"):
        execute([stage("a", work=work, distributed=True)], run, RECIPE, TWO)


def test_a_known_error_of_two_processes_has_its_own_hint(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", RECIPE, TWO)
    with pytest.raises(DataError, match=r"^The worker of a failed: prompts.jsonl:3: bad row\. Mend it\.$"):
        execute([stage("a", work="refuse", distributed=True)], run, RECIPE, TWO)
