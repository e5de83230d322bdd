"""Locks between processes that hold the same file open."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from gshf_release.data import locks


def test_an_exclusive_lock_is_taken_once(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert locks.take(first)
        assert not locks.take(second)


def test_a_shared_lock_keeps_out_only_who_wants_it_alone(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a+") as first, (tmp_path / "lock").open("a+") as second:
        assert locks.take(first)
        locks.share(first)
        locks.share(second)
        with (tmp_path / "lock").open("a") as third:
            assert not locks.take(third)


def test_who_waits_gets_the_lock_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = "import sys, time; from gshf_release.data import locks; f = open(sys.argv[1], 'a'); locks.wait_for(f)"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print(1, flush=True); time.sleep(600)", path],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    with path.open("a") as stream:
        assert not locks.take(stream)
        waiting = threading.Thread(target=locks.wait_for, args=(stream,))
        waiting.start()
        holder.kill()
        waiting.join(timeout=30)
        assert not waiting.is_alive()
    holder.wait()
    holder.stdout.close()
