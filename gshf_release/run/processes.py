"""The profile's training processes, as the command that starts them sees them: a launcher, a file that asks it to stop."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, Self

from gshf_release.errors import Interrupted, RunError
from gshf_release.run import interrupt, launch

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""How long srun may take to end what it started on all machines."""


class Processes:
    """Used in a `with` statement, which ends what is left of them."""

    def __init__(self, command: Sequence[str], stop: Path, locks: Collection[int], *, elsewhere: bool = False) -> None:
        """Start them.

        Args:
            command: The launcher's; see `launch.py`.
            stop: The file whose appearance asks them to save and stop.
            locks: Descriptors of the locks of their work, which the launcher holds too.
            elsewhere: Some of them are on other machines, where nothing ends with the launcher: it has to end them itself.
        """
        self._stop, self._asked, self._elsewhere = stop, False, elsewhere
        stop.unlink(missing_ok=True)
        self._complaint: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self._complaint, pass_fds=tuple(locks), start_new_session=True
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
        self._complaint.close()

    def finish(self, what: str, done: Callable[[], bool] = lambda: False) -> None:
        """Wait until something is done, by default until the processes have ended.

        Raises:
            RunError: They failed at it.
            Interrupted: This process was asked to stop; what trains has saved.
        """
        while not done() and self._process.poll() is None:
            if interrupt.requested() and not self._asked:
                with contextlib.suppress(FileNotFoundError):  # they are done and have cleared up
                    self._stop.touch()  # torchrun answers a signal by killing its processes after 30 seconds
                self._asked = True
            time.sleep(POLL_SECONDS)
        if done():
            return
        code = self._process.returncode
        if code == Interrupted.exit_code or self._asked:
            raise Interrupted("Stopped on request.")
        if code != 0:
            self._complaint.seek(0)
            why = launch.complaint(self._complaint.read().strip().splitlines(), code)
            raise RunError(f"The worker of {what} failed: {why}", hint="Run the same command to try again.")
