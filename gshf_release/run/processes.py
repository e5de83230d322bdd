"""The profile's training processes, as the command that starts them sees them: a launcher, a file that asks it to stop."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Self

from gshf_release.environments import SAFE_PATH_VARIABLE
from gshf_release.run import interrupt, worker_protocol
from gshf_release.run.context import Progress, Say, quiet, silent

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""How long srun may take to end what it started on all machines."""


class Processes:
    """Used in a `with` statement, which ends what is left of them."""

    def __init__(
        self,
        command: Sequence[str],
        stop: Path,
        locks: Collection[int],
        *,
        say: Say = quiet,
        elsewhere: bool = False,
    ) -> None:
        """Start them.

        Args:
            command: The launcher's; see `launch.py`.
            stop: The file whose appearance asks them to save and stop.
            locks: Descriptors of the locks of their work, which the launcher holds too.
            say: Hears what that of rank 0 says to the user.
            elsewhere: Some of them are on other machines, where nothing ends with the launcher: it has to end them itself.
        """
        self._stop, self._asked, self._say, self._elsewhere = stop, False, say, elsewhere
        stop.unlink(missing_ok=True)
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._lines = _lines(self._printed)
        self._process = subprocess.Popen(
            command,
            env={**os.environ, SAFE_PATH_VARIABLE: "1"},  # launchers pass it on
            stdout=subprocess.DEVNULL,
            stderr=self._printed,
            pass_fds=tuple(locks),
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._elsewhere and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_SECONDS)
        self._process.kill()
        self._process.wait()
        self._printed.close()

    def finish(self, what: str, progress: Progress = silent, done: Callable[[], bool] = lambda: False) -> None:
        """Wait until something is done, by default until the processes have ended.

        Args:
            what: Their work.
            progress: Hears of it from that of rank 0.
            done: Whether it is done.

        Raises:
            GshfError: They failed at it, with their own reason and hint.
            RunError: They failed in a way that nobody foresaw.
            Interrupted: This process was asked to stop; what trains has saved.
        """
        while not done() and self._process.poll() is None:
            if interrupt.requested() and not self._asked:
                with contextlib.suppress(FileNotFoundError):  # they are done and have cleared up
                    self._stop.touch()  # torchrun answers a signal by killing its processes after 30 seconds
                self._asked = True
            self._listen(progress)
            time.sleep(POLL_SECONDS)
        self._listen(progress)
        code = self._process.poll()
        if code and not done():
            self._printed.seek(0)
            printed = self._printed.read().decode("utf-8", "replace")
            raise worker_protocol.failure(what, printed.strip().splitlines(), code)

    def _listen(self, progress: Progress) -> None:
        """Pass on what has been told since the last time."""
        for line in next(self._lines):
            message = worker_protocol.marked(line)
            if message is not None:
                worker_protocol.pass_on(message, progress, self._say)


def _lines(file: IO[bytes]) -> Iterator[list[str]]:
    """Yield, at each turn, the whole lines that a file has grown by, and leave its position to those who write to it."""
    position, rest = 0, b""
    while True:
        content = os.pread(file.fileno(), os.fstat(file.fileno()).st_size - position, position)
        position += len(content)
        lines = (rest + content).splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        yield [line.decode("utf-8", "replace") for line in lines]
