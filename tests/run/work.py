"""Work functions for the tests of the run directory, small enough to run in any process. `made()` says which tasks were done.

`write` puts out `out.json` with what it read, so that an output depends on exactly its inputs, its keys and its parameters.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from gshf_release.data.records import Score
from gshf_release.data.results import Cell
from gshf_release.errors import DataError
from gshf_release.run import interrupt, launch, stopwatch
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Input, Stage

FILE = "out.json"


def stage(name: str, *sources: str, work: str = "write", **options: Any) -> Stage:
    """Return a stage that reads `out.json` of `sources`; `work` is a function of this module."""
    inputs = tuple(Input(source, FILE, options.get("scope", "all")) for source in sources)
    options = {key: value for key, value in options.items() if key != "scope"}
    return Stage(name=name, work=f"tests.run.work:{work}", inputs=inputs, **({"outputs": (FILE,)} | options))


def made(run: RunDirectory) -> list[str]:
    """Return the labels of the tasks that were done, in order, from the journal."""
    return [entry["stage"] for entry in run.journal() if entry["event"] == "finished"]


def write(context: StageContext) -> None:
    """Put out what was read."""
    read = {
        f"{item.stage}": [
            json.loads(path.read_text(encoding="utf-8")) for path in context.inputs(item.stage, item.file)
        ]
        for item in context.task.stage.inputs
    }
    keys = {key: context.recipe.value(key) for key in context.task.stage.keys}
    content = {
        "shard": context.task.shard,
        "read": read,
        "keys": keys,
        "parameters": dict(context.task.stage.parameters),
    }
    context.output(FILE).write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def write_otherwise(context: StageContext) -> None:
    """Put out what was read, in a corrected form."""
    write(context)
    path = context.output(FILE)
    path.write_text(f"{path.read_text(encoding='utf-8')}\n", encoding="utf-8")


def write_folder(context: StageContext) -> None:
    """Put out a folder of two files as `model`."""
    folder = context.output("model")
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"weights")
    (folder / "inner" / "config").write_text("{}", encoding="utf-8")


def count(context: StageContext) -> list[Cell]:
    """Return a cell computed from the output."""
    length = context.output(FILE).stat().st_size
    return [Cell(table="t", row=context.task.stage.name, metric="bytes", value=length)]


def load_for_a_while(context: StageContext) -> None:
    """Load for 50 ms, some of it within another stretch of loading, which counts once."""
    with stopwatch.part("loading"), stopwatch.part("loading"):
        time.sleep(0.05)
    write(context)


def fail_once(context: StageContext) -> None:
    """Raise while the file `broken` is in the run, having written half of the output; else write."""
    if (context.run.path / "broken").exists():
        context.output(FILE).write_text('{"half', encoding="utf-8")
        (context.scratch / "saved").write_text("from the first try", encoding="utf-8")
        raise ZeroDivisionError("broken")
    write(context)


def killed_once(context: StageContext) -> None:
    """Be killed while the file `broken` is in the run, the output written; else write."""
    write(context)
    if (context.run.path / "broken").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def refuse(context: StageContext) -> None:
    """Raise a known error."""
    raise DataError("prompts.jsonl:3: bad row.", hint="Mend it.")


def forget(context: StageContext) -> None:
    """Write nothing."""


def no_space(context: StageContext) -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def no_permission(context: StageContext) -> None:
    """Fail as another system error does."""
    raise PermissionError(errno.EACCES, "Permission denied")


def rows_to_full_device(context: StageContext) -> None:
    """Write Parquet to a device that is always full."""
    context.output(FILE).symlink_to("/dev/full")
    Score.write([Score("p", 0, 1.0, "s")], context.output(FILE))


def two_megabytes(context: StageContext) -> None:
    """Write more than a small disk holds."""
    context.output(FILE).write_bytes(os.urandom(2_000_000))


def two_megabytes_of_tensors(context: StageContext) -> None:
    """Write more than a small disk holds, as safetensors."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weights": np.ones(500_000, dtype=np.float32)}, context.output(FILE))


def say_process(context: StageContext) -> None:
    """Note which process does it."""
    context.log("process", process=os.getpid())
    write(context)


def report_progress(context: StageContext) -> None:
    """Report three steps."""
    for done in range(1, 4):
        context.progress(done, 3, "steps")
    write(context)


def die(context: StageContext) -> None:
    """End this process without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(context: StageContext) -> None:
    """End this process without a word at the first try, an output half written; write at the second."""
    died = context.scratch / "died"
    if not died.exists():
        died.touch()
        context.output(FILE).write_text('{"half', encoding="utf-8")
        die(context)
    say_process(context)


def processes(run: RunDirectory) -> dict[str, set[int]]:
    """Return which processes worked on each stage that says so."""
    found: dict[str, set[int]] = {}
    for entry in run.journal():
        if entry["event"] == "process":
            found.setdefault(entry["stage"].split()[0], set()).add(entry["process"])
    return found


def say_process_together(context: StageContext) -> None:
    """Note which process does it, and wait until every shard of the stage has one."""
    say_process(context)
    wait(lambda: len(processes(context.run)[context.task.stage.name]) == context.task.stage.shards)


def say_process_alone(context: StageContext) -> None:
    """Note which process does it; refuse if one that did other work is still there, and with it its memory on a device."""
    before = set().union(*processes(context.run).values()) - {os.getpid()}
    if left := [pid for pid in before if alive(pid)]:
        raise DataError(f"still there: {left}")
    say_process(context)


def say_something(context: StageContext) -> None:
    """Tell the user something."""
    context.say("two prompts are too long")
    write(context)


def tell_among_others(context: StageContext) -> None:
    """Say something and report progress, in each of several training processes."""
    context.say(f"{context.task.label}: two responses are too long (rank {launch.rank()})")
    for done in range(1, 4):
        context.progress(done, 3, "steps")
    if launch.rank() == 0:
        write(context)


def fail_to_save(context: StageContext) -> None:
    """As `work_until_stopped`, but find no room for the checkpoint of rank 0."""
    try:
        work_until_stopped(context)
    finally:
        if launch.rank() == 0:
            no_space(context)


def work_until_stopped(context: StageContext) -> None:
    """Say that work has begun, and work until asked to stop."""
    if launch.rank() == 0:
        (context.scratch / "begun").touch()
    wait(interrupt.requested)
    interrupt.check()


def fail_beside(context: StageContext) -> None:
    """As `work_until_stopped`, but rank 1 fails in a way that nobody foresaw."""
    if launch.rank() == 1:
        raise ZeroDivisionError("broken")
    work_until_stopped(context)


def die_beside(context: StageContext) -> None:
    """As `work_until_stopped`, but rank 1 ends without a word."""
    if launch.rank() == 1:
        die(context)
    work_until_stopped(context)


def run_out_of_memory(context: StageContext) -> None:
    """As `work_until_stopped`, but nobody foresees that the checkpoint cannot be saved."""
    (context.scratch / "begun").touch()
    wait(interrupt.requested)
    raise MemoryError("no memory for the checkpoint")


def be_killed_at_the_checkpoint(context: StageContext) -> None:
    """As `run_out_of_memory`, as the kernel does it."""
    context.log("process", process=os.getpid())
    (context.scratch / "begun").touch()
    wait(interrupt.requested)
    die(context)


def refuse_beside_others(context: StageContext) -> None:
    """Raise a known error once the file `begun` is in the run."""
    wait((context.run.path / "begun").exists)
    refuse(context)


def fail_after_the_other(context: StageContext) -> None:
    """Say that work has begun, and fail once the file `heard` is in the run."""
    (context.run.path / "begun").touch()
    wait((context.run.path / "heard").exists)
    raise DataError("no memory left.", hint="Use a larger machine.")


def kill_the_idle(context: StageContext) -> None:
    """Kill every other process that has worked on the run."""
    for pid in set().union(*processes(context.run).values()) - {os.getpid()}:
        os.kill(pid, signal.SIGKILL)
        wait(lambda pid=pid: not alive(pid))
    write(context)


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie; one whose other threads have not ended yet still counts."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state not in "ZX" or sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > 1
    except OSError:
        return False


def stop_once(context: StageContext) -> None:
    """Ask this very process to stop, save what there is, and stop; write at the second try."""
    saved = context.scratch / "saved"
    if not saved.exists():
        os.kill(os.getpid(), signal.SIGTERM)
        saved.write_text("half", encoding="utf-8")
        interrupt.check()
    write(context)


def wait_for_signal(context: StageContext) -> None:
    """Say that work has begun, then work until asked to stop; write at the second try."""
    begun = context.scratch / "begun"
    if not begun.exists():
        begun.touch()
        wait(interrupt.requested)
        interrupt.check()
    write(context)


def wait_for_shard_of_b(context: StageContext) -> None:
    """Finish shard 1 of `a` only after shard 0 of `b`, which reads shard 0 of `a` alone, has finished."""
    if context.task.shard == 1:
        wait(lambda: "b 1/2" in made(context.run))
    write(context)


def overlap(context: StageContext) -> None:
    """Note when this process begins and ends."""
    log = context.run.path / "overlap.log"
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"begin {os.getpid()}\n")
    time.sleep(2.0)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"end {os.getpid()}\n")
    write(context)


def stay(context: StageContext) -> None:
    """Note which process does it, and work longer than any test takes."""
    context.log("process", process=os.getpid())
    wait(lambda: False, seconds=600)


def wait(condition: Any, seconds: float = 120.0) -> None:
    """Return once `condition()` holds.

    Raises:
        TimeoutError: It does not come to hold.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("waited in vain")
        time.sleep(0.01)


def run_in_this_process(path: str, profile: str, names: str) -> None:
    """Execute a chain of stages whose works are `names`, comma-separated; the entry point of subprocesses."""
    from gshf_release.run import persistent_worker
    from gshf_release.run.execution import execute
    from tests.run.plans import PROFILES, RECIPE, chain, without_torch

    persistent_worker.command_here = without_torch
    run = RunDirectory.create(Path(path), RECIPE, PROFILES[profile])
    execute(chain(*names.split(",")), run, RECIPE, PROFILES[profile])


if __name__ == "__main__":
    import sys

    from gshf_release.errors import GshfError

    try:
        run_in_this_process(*sys.argv[1:])
    except GshfError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
