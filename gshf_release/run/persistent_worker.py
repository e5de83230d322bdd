"""A worker that stays: a process that takes one task after the other, so that libraries and engines are loaded once.

Its two ends speak JSON lines over a pair of sockets. With each task travels the descriptor of the task's lock, so
the lock is held as long as either end lives. The worker leaves when the other end closes, and dies with it if that is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from gshf_release import environments
from gshf_release.errors import GshfError, Interrupted, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.run import interrupt, launch, worker_protocol
from gshf_release.run.context import Progress, Say
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage, Task
from gshf_release.run.worker_protocol import Message

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 30.0
"""How long a worker may take to leave before it is ended."""
LONGEST_MESSAGE = 65536
GENTLE = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a worker to stop; Ctrl-C reaches it too."""
ENGINE, HERE = "engine", "here"


def environment_of(stage: Stage, profile: Profile) -> str:
    """Return the name of the environment that a stage's work needs; empty if it is this one."""
    if stage.runs_in == ENGINE:
        return environments.OF_ENGINE.get(profile.engine, "")
    return stage.runs_in


def session_of(stage: Stage, profile: Profile) -> str:
    """Return for which tasks what one of them opened is kept: all that sample from one policy, else the shards of a stage."""
    environment, policy = environment_of(stage, profile), stage.parameters.get("policy")
    return f"{environment} on {policy}" if environment and stage.runs_in == ENGINE and policy else stage.name


def stay_of(stage: Stage, profile: Profile) -> str:
    """Return what a worker that does not stay for good stays for: a session, or all that comes before the device is needed.

    The latter with `stages: auto`, for stages of this environment: starting takes seconds, and most of them compute little.
    """
    elsewhere = environment_of(stage, profile) or launch.distributed(stage, profile)
    if elsewhere or profile.stages == "worker" or profile.parallel_workers > 1:
        return session_of(stage, profile)
    return HERE


def command_here(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in this environment."""
    return [sys.executable, environments.SAFE_PATH, "-m", module, *arguments]


class WorkerKilled(RunError):
    """A worker ended by a signal, and not because it was asked to."""


class PersistentWorker:
    """This end: starts the worker and gives it tasks.

    The kernel ends the worker with the thread that started it, which therefore has to live until `close`.
    """

    def __init__(
        self, run: RunDirectory, environment: str, session: str | None, device: str = environments.AUTO
    ) -> None:
        """Start a worker; it says nothing until it gets a task.

        Args:
            run: Its run.
            environment: Name of the one it lives in; empty for this one.
            session: Those whose tasks alone it gets (`stay_of`), or None.
            device: The profile's; an environment may be there for each.
        """
        self.environment, self.session = environment, session
        self._channel, theirs = socket.socketpair()
        self._complaint: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        module = ("gshf_release.run.worker", str(run.path), f"--serve={theirs.fileno()}")
        command, variables = command_here(*module), None
        if environment:
            found = environments.require(environment, device)
            command, variables = found.command(*module), found.variables()
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaint,
                pass_fds=(theirs.fileno(),),
            )
        self._lines = _lines(self._channel)

    @property
    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def work(self, task: Task, lock: int, progress: Progress, say: Say) -> None:
        """Have one task done.

        Raises:
            GshfError: The work failed, with the worker's own reason and hint.
            RunError: It failed in a way that nobody foresaw; with GSHF_DEBUG=1 all that the worker printed is shown.
            WorkerKilled: The worker was killed.
            Interrupted: This process was asked to stop, and nothing else went wrong.
        """
        try:
            message = json.dumps({"stage": task.stage.name, "shard": task.shard})
            socket.send_fds(self._channel, [message.encode() + b"\n"], [lock])
            answer = self._answer(progress, say)
        except OSError:  # the worker is gone
            answer = None
        if answer is not None and "done" in answer:
            return
        raise self._end(task.label) if answer is None else worker_protocol.error_in(answer, task.label)

    def dismiss(self) -> None:
        """Let the worker leave."""
        self._channel.close()

    def close(self) -> None:
        """Let the worker leave, wait until it has, and end it if it does not."""
        self.dismiss()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._complaint.close()

    def _answer(self, progress: Progress, say: Say) -> Message | None:
        """Wait for the end of a task; None if the worker went without a word."""
        asked = False
        while True:
            if interrupt.requested() and not asked:
                self._process.terminate()
                asked = True
            if not select.select([self._channel], [], [], POLL_SECONDS)[0]:
                continue
            for message in next(self._lines):
                if message is None:
                    return None
                if not worker_protocol.pass_on(message, progress, say):
                    return message

    def _end(self, what: str) -> GshfError:
        """Return the error of a worker that went without an answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_SECONDS)
        self._complaint.seek(0)
        printed = self._complaint.read().strip()
        if os.environ.get("GSHF_DEBUG"):
            print(printed, file=sys.stderr)
        code = self._process.returncode or 0
        if -code in GENTLE and interrupt.requested():  # it had only begun to load
            return Interrupted(interrupt.MESSAGE)
        error = worker_protocol.failure(what, printed.splitlines(), code)
        return WorkerKilled(error.message, hint=error.hint) if code < 0 else error


def serve(descriptor: int, work: Callable[[str, int, Progress, Say], None]) -> None:
    """Be the worker: do `work(stage, shard, progress, say)` for each task that comes, until the other end closes.

    Raises:
        Interrupted: SIGTERM came, in a task or between two.
    """
    with socket.socket(fileno=descriptor) as channel:
        while True:
            interrupt.check()
            if not select.select([channel], [], [], POLL_SECONDS)[0]:
                continue
            content, locks, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, 1)
            if not content:
                return
            for lock in locks:
                os.set_inheritable(lock, False)
            task = json.loads(content)
            try:
                reporter = worker_protocol.ProgressReporter(partial(_send, channel))
                work(task["stage"], task["shard"], reporter.progress, reporter.say)
                _send(channel, {"done": True})
            except GshfError as error:
                _send(channel, worker_protocol.of_error(error))
                raise
            finally:
                for lock in locks:
                    os.close(lock)


def _send(channel: socket.socket, message: Message) -> None:
    with contextlib.suppress(OSError):  # the other end may be gone; the work is finished all the same
        channel.sendall(json.dumps(message).encode() + b"\n")


def _lines(channel: socket.socket) -> Iterator[list[Message | None]]:
    """Yield, at each turn, the whole messages that have come; None at the end."""
    rest = b""
    while True:
        content = channel.recv(LONGEST_MESSAGE)
        *whole, rest = (rest + content).split(b"\n")
        yield [*(json.loads(line) for line in whole), *([] if content else [None])]
