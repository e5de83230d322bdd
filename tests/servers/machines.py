"""Machines for tests that need several: network namespaces of this one, each with a name, an address and no way out.

What runs in one sees the files of this machine, and the other machines over a network. That takes root on Linux.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

NEEDED = ("ip", "nsenter", "unshare")
HEAD = "head"
"""The name of this machine among them."""


def lacking(commands: Sequence[str] = ()) -> str:
    """Return why there can be no machines here, or no programs that are to run on them; empty if there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces take root on Linux"
    missing = [name for name in (*NEEDED, *commands) if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if _namespaces_work() else "this system lets nobody make network namespaces"


class Machines:
    """Machines with the given names, as a context manager. Host names are known on all of them, and of nothing else."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)
        self._mark = f"g{os.getpid()}"
        self._net = (
            f"198.{18 + os.getpid() // 250 % 2}.{os.getpid() % 250}"  # kept free for tests of networks, RFC 2544
        )
        self._hosts = folder / "hosts"
        self._started: list[subprocess.Popen[bytes]] = []
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._undo.close()
            raise
        return self

    def _make(self) -> None:
        addresses = "".join(f"{self.address(name)} {name}\n" for name in (HEAD, *self.names))
        self._hosts.write_text(f"127.0.0.1 localhost\n{addresses}", encoding="utf-8")
        _ip("link", "add", self._bridge, "type", "bridge")
        self._undo.callback(_ip, "link", "delete", self._bridge)
        _ip("address", "add", f"{self.address(HEAD)}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name in self.names:
            space, cable = self._space(name), f"{self._mark}v{self.names.index(name)}"
            _ip("netns", "add", space)
            self._undo.callback(_ip, "netns", "delete", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._bridge, "up")
            _ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", space, "link", "set", device, "up")
        self._undo.callback(self._end_all)  # goes first of all

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _end_all(self) -> None:
        for name in self.names:
            self.kill(name)
        for process in self._started:
            process.kill()
            process.wait()

    def address(self, name: str) -> str:
        """Return the address of a machine."""
        return f"{self._net}.{1 if name == HEAD else 11 + self.names.index(name)}"

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """Return the command that runs another one on a machine."""
        inside = f"hostname {name}; mount --bind {shlex.quote(str(self._hosts))} /etc/hosts; exec {shlex.join(words)}"
        enter = [] if name == HEAD else ["nsenter", f"--net=/run/netns/{self._space(name)}"]
        return [*enter, "unshare", "--mount", "--uts", "bash", "-c", inside]

    def start(
        self, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a machine; it ends with the machines."""
        opened: IO[bytes]
        with log.open("ab") as opened:
            process = subprocess.Popen(
                self.command(name, words), stdin=subprocess.DEVNULL, stdout=opened, stderr=opened, env=environment
            )
        self._started.append(process)
        return process

    def processes(self, name: str) -> list[int]:
        """Return what runs on a machine."""
        return [int(process) for process in _ip("netns", "pids", self._space(name)).split()]

    def kill(self, name: str) -> None:
        """Kill everything that runs on a machine, as a loss of power would."""
        for _ in range(100):
            found = self.processes(name)
            if not found:
                return
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)

    @property
    def _bridge(self) -> str:
        return f"{self._mark}b"

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _namespaces_work() -> bool:
    probe = "ip link add probe type bridge && hostname probe && mount --bind /etc/hosts /etc/hosts"
    words = ["unshare", "--net", "--mount", "--uts", "sh", "-c", probe]
    return subprocess.run(words, capture_output=True).returncode == 0
